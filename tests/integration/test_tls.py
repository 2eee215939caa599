"""TLS and mutual TLS, with certificates that openssl makes for the test."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from tests.models import make_models
from tests.support.oip_client import Client
from tests.support.running_server import RunningServer
from trtserve_engines.config import ConfigError
from trtserve_server.banner import banner

Serve = Callable[..., RunningServer]
Connect = Callable[..., Client]

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="the program openssl is not here")


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class Authority:
    """A certificate authority in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._key, self.certificate = folder / "ca.key", folder / "ca.pem"
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        openssl("req", "-x509", *curve, "-keyout", self._key, "-out", self.certificate, "-subj", f"/CN={folder.name}")
        self._curve = curve

    def issue(self, name: str) -> tuple[Path, Path]:
        """Key and certificate for 127.0.0.1."""
        key, request, certificate = (self._folder / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        extensions = self._folder / f"{name}.ext"
        extensions.write_text("subjectAltName = IP:127.0.0.1\n")
        openssl("req", "-new", *self._curve, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        signing = ("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial", "-extfile", extensions)
        openssl("x509", "-req", "-in", request, "-out", certificate, *signing)
        return key, certificate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder / "ours")


@pytest.fixture(scope="module")
def stranger(folder: Path) -> Authority:
    return Authority(folder / "theirs")


@pytest.fixture(scope="module")
def server_files(authority: Authority) -> dict[str, str]:
    """The server's options."""
    key, certificate = authority.issue("server")
    return {"tls_key": str(key), "tls_certificate": str(certificate)}


@pytest.fixture
def models(tmp_path: Path) -> dict[str, tuple[str]]:
    return {"model": (str(make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")),)}


def credentials(authority: Authority, issued: tuple[Path, Path] | None = None) -> grpc.ChannelCredentials:
    """Of a client that trusts `authority` and shows what was issued to it."""
    key, certificate = (path.read_bytes() for path in issued) if issued else (None, None)
    return grpc.ssl_channel_credentials(authority.certificate.read_bytes(), key, certificate)


def assert_refused(client: Client) -> None:
    error = client.error("ServerLive", timeout=5)
    assert error.code() is grpc.StatusCode.UNAVAILABLE


def test_a_client_that_trusts_the_authority_is_served(
    serve: Serve, connect: Connect, server_files: dict, models: dict, authority: Authority
) -> None:
    client = connect(serve(**server_files, **models), credentials(authority))
    assert client.call("ModelReady", name="double").ready


def test_a_client_that_trusts_another_authority_refuses_the_server(
    serve: Serve, connect: Connect, server_files: dict, models: dict, authority: Authority, stranger: Authority
) -> None:
    server = serve(**server_files, **models)
    assert_refused(connect(server, credentials(stranger)))
    assert connect(server, credentials(authority)).call("ServerLive").live


def test_a_client_without_tls_is_not_served(
    serve: Serve, connect: Connect, server_files: dict, models: dict, authority: Authority
) -> None:
    server = serve(**server_files, **models)
    assert_refused(connect(server))
    assert connect(server, credentials(authority)).call("ServerLive").live


def test_a_client_with_a_certificate_of_the_clients_authority_is_served(
    serve: Serve, connect: Connect, server_files: dict, models: dict, authority: Authority
) -> None:
    server = serve(**server_files, **models, tls_client_ca=str(authority.certificate))
    assert connect(server, credentials(authority, authority.issue("client"))).call("ServerLive").live
    assert "--tls --private-key CLIENT.key --certificate-chain CLIENT.pem model" in banner(server.app, 1.0)


def test_a_client_without_a_certificate_is_refused_where_one_is_wanted(
    serve: Serve, connect: Connect, server_files: dict, models: dict, authority: Authority
) -> None:
    server = serve(**server_files, **models, tls_client_ca=str(authority.certificate))
    assert_refused(connect(server, credentials(authority)))


def test_a_client_with_a_certificate_of_another_authority_is_refused(
    serve: Serve, connect: Connect, server_files: dict, models: dict, authority: Authority, stranger: Authority
) -> None:
    server = serve(**server_files, **models, tls_client_ca=str(authority.certificate))
    assert_refused(connect(server, credentials(authority, stranger.issue("client"))))
    assert connect(server, credentials(authority, authority.issue("other"))).call("ServerLive").live


# ---- What cannot be started with


def refusal(serve: Serve, **options: object) -> str:
    with pytest.raises(ConfigError) as caught:
        serve(**options)
    return str(caught.value)


@pytest.mark.parametrize("option", ["tls_key", "tls_certificate", "tls_client_ca"])
def test_a_file_that_does_not_exist_is_named_with_its_option(serve: Serve, server_files: dict, option: str) -> None:
    text = refusal(serve, **{**server_files, option: "/no/such.pem"})
    assert text == f"{option} = '/no/such.pem' cannot be read: No such file or directory"


@pytest.mark.parametrize("option", ["tls_key", "tls_certificate", "tls_client_ca"])
def test_a_file_that_is_no_pem_is_named_with_its_option(
    serve: Serve, server_files: dict, tmp_path: Path, option: str
) -> None:
    (tmp_path / "file").write_bytes(b"\x30\x82 DER")
    text = refusal(serve, **{**server_files, option: str(tmp_path / "file")})
    assert text.startswith(f"{option} = ")
    assert "not a PEM file" in text


@pytest.mark.parametrize("option", ["tls_key", "tls_certificate"])
def test_one_of_key_and_certificate_is_not_enough(serve: Serve, server_files: dict, option: str) -> None:
    text = refusal(serve, **{option: server_files[option]})
    assert "tls_certificate and tls_key go together" in text


def test_an_authority_for_clients_needs_a_certificate_of_the_server(serve: Serve, authority: Authority) -> None:
    text = refusal(serve, tls_client_ca=str(authority.certificate))
    assert "tls_client_ca needs tls_certificate and tls_key" in text


def test_a_key_of_another_certificate_is_refused_as_such(
    serve: Serve, server_files: dict, authority: Authority
) -> None:
    key, _ = authority.issue("other_server")
    text = refusal(serve, **{**server_files, "tls_key": str(key)})
    assert "tls_key" in text
    assert "tls_certificate" in text
    assert "another server" not in text


def test_a_key_with_a_password_is_refused_and_not_asked_for(serve: Serve, server_files: dict, tmp_path: Path) -> None:
    openssl("ec", "-in", server_files["tls_key"], "-aes256", "-passout", "pass:secret", "-out", tmp_path / "locked.key")
    text = refusal(serve, **{**server_files, "tls_key": str(tmp_path / "locked.key")})
    assert "unencrypted private key" in text


@pytest.mark.parametrize("option", ["tls_key", "tls_certificate", "tls_client_ca"])
def test_a_pem_file_with_nothing_usable_in_it_is_refused_as_such(
    serve: Serve, server_files: dict, tmp_path: Path, option: str
) -> None:
    (tmp_path / "file.pem").write_text("-----BEGIN NOTHING-----\nAAAA\n-----END NOTHING-----\n")
    text = refusal(serve, **{**server_files, option: str(tmp_path / "file.pem")})
    assert option in text
    assert "another server" not in text
