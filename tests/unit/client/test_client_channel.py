"""URLs, options and certificates: what is taken, what is refused and in which words, what gRPC is told."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest

from trtserve_client import ChannelOptions, Client, ClientError, TlsOptions
from trtserve_client.channel import target_from_url, tls_options
from trtserve_client.endpoint import Endpoint, deadline_after, seconds_until

GOOD = [
    ("localhost:8001", "localhost:8001", None),
    ("127.0.0.1:1", "127.0.0.1:1", None),
    ("grpc://gpu-7.example:65535", "gpu-7.example:65535", False),
    ("grpcs://gpu-7.example:443", "gpu-7.example:443", True),
    ("[::1]:8001", "[::1]:8001", None),
    ("grpc://[2001:db8::1]:8001", "[2001:db8::1]:8001", False),
    ("unix:/run/trtserve.sock", "unix:/run/trtserve.sock", None),
    ("unix:///run/trtserve.sock", "unix:///run/trtserve.sock", None),
]

BAD = [
    ("", "it is empty"),
    ("localhost", "host or port is missing"),
    ("localhost:", "host or port is missing"),
    (":8001", "host or port is missing"),
    ("grpc://", "it is empty"),
    ("localhost:grpc", "host or port is missing"),
    ("localhost:0", "port 0 is not within 1 ... 65535"),
    ("localhost:65536", "port 65536 is not within 1 ... 65535"),
    ("http://localhost:8000", "scheme 'http' is not spoken here"),
    ("https://localhost:8000/v2", "scheme 'https' is not spoken here"),
    ("grpc://localhost:8001/", "host or port is missing"),
    ("grpc://user@localhost:8001", "it has more than host and port"),
    ("local host:8001", "it has more than host and port"),
    ("a/b:8001", "it has more than host and port"),
    ("::1:8001", "an IPv6 address needs brackets"),
    ("unix:run/trtserve.sock", "the path of a Unix socket must be absolute"),
    ("unix://run/trtserve.sock", "the path of a Unix socket must be absolute"),
    ("unix:", "the path of a Unix socket must be absolute"),
]


@pytest.mark.parametrize(("url", "target", "tls"), GOOD, ids=[url for url, *_ in GOOD])
def test_a_url_says_where_and_whether_encrypted(url: str, target: str, tls: bool | None) -> None:
    assert target_from_url(url) == (target, tls)


@pytest.mark.parametrize(("url", "reason"), BAD, ids=[url or "empty" for url, _ in BAD])
def test_other_urls_are_refused_with_the_forms_that_are_taken(url: str, reason: str) -> None:
    with pytest.raises(ClientError) as caught:
        Client(url)
    assert str(caught.value).startswith(f'URL {url!r}: {reason}; wanted is one of "host:port", ')


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"max_send_bytes": -2}, "max_send_bytes=-2, at least -1 wanted"),
        ({"keepalive_time_ms": 0}, "keepalive_time_ms=0, at least 1 wanted"),
        ({"max_attempts": -1}, "max_attempts=-1, at least 0 wanted"),
        ({"max_attempts": 6}, "max_attempts=6, at most 5 wanted"),
        ({"first_backoff_ms": 9}, "first_backoff_ms=9, at least 10 wanted"),
        ({"max_backoff_ms": 50}, "max_backoff_ms=50 is less than first_backoff_ms=100"),
    ],
    ids=str,
)
def test_options_outside_their_range_are_refused(setting: dict[str, int], message: str) -> None:
    with pytest.raises(ClientError, match=message):
        ChannelOptions(**setting)  # type: ignore[arg-type]


def test_the_defaults_are_unlimited_messages_slow_pings_and_three_attempts() -> None:
    arguments = dict(ChannelOptions().channel_arguments("host:1"))
    assert arguments["grpc.max_send_message_length"] == arguments["grpc.max_receive_message_length"] == -1
    assert arguments["grpc.keepalive_time_ms"] == 2 * 60 * 60 * 1000
    assert arguments["grpc.keepalive_timeout_ms"] == 20_000
    config = json.loads(str(arguments["grpc.service_config"]))["methodConfig"][0]
    assert config["retryPolicy"]["maxAttempts"] == 3
    assert config["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
    assert {"service": "inference.GRPCInferenceService", "method": "ModelInfer"} in config["name"]
    assert not {"ModelStreamInfer", "Watch"} & {name["method"] for name in config["name"]}


@pytest.mark.parametrize("attempts", [0, 1])
def test_no_retry_means_no_service_config(attempts: int) -> None:
    assert "grpc.service_config" not in dict(ChannelOptions(max_attempts=attempts).channel_arguments("host:1"))


def test_arguments_win_over_options_and_loopback_needs_no_proxy() -> None:
    options = ChannelOptions(arguments=(("grpc.keepalive_time_ms", 5), ("grpc.primary_user_agent", "me")))
    arguments = dict(options.channel_arguments("localhost:8001"))
    assert arguments["grpc.keepalive_time_ms"] == 5 and arguments["grpc.primary_user_agent"] == "me"
    assert arguments["grpc.enable_http_proxy"] == 0
    assert "grpc.enable_http_proxy" not in dict(options.channel_arguments("far:8001"))


@pytest.mark.parametrize(
    ("given", "asked", "wanted"),
    [
        (None, None, None),
        (None, False, None),
        (None, True, TlsOptions()),
        (False, None, None),
        (False, False, None),
        (True, None, TlsOptions()),
        (True, True, TlsOptions()),
        (TlsOptions(b"pem"), None, TlsOptions(b"pem")),
        (TlsOptions(b"pem"), True, TlsOptions(b"pem")),
    ],
    ids=repr,
)
def test_tls_follows_the_caller_or_the_url(
    given: TlsOptions | bool | None, asked: bool | None, wanted: TlsOptions | None
) -> None:
    assert tls_options(given, asked) == wanted


@pytest.mark.parametrize(("given", "asked"), [(True, False), (TlsOptions(), False), (False, True)], ids=repr)
def test_tls_that_contradicts_the_url_is_refused(given: TlsOptions | bool, asked: bool) -> None:
    with pytest.raises(ClientError, match="contradicts the URL's grpc"):
        tls_options(given, asked)


def test_a_key_and_its_certificate_come_together(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="private_key given without certificate_chain"):
        TlsOptions(private_key=b"key")
    with pytest.raises(ClientError, match="certificate_chain given without private_key"):
        TlsOptions(certificate_chain=b"chain")
    assert "secret" not in repr(TlsOptions(private_key=b"secret", certificate_chain=b"chain"))


def test_a_certificate_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match=r"nothing\.pem' cannot be read: No such file"):
        Client("grpcs://host:1", tls=TlsOptions(root_certificates=tmp_path / "nothing.pem"))


def test_headers_are_standing_ones_and_those_of_the_call() -> None:
    endpoint = Endpoint("host:1", None, None, {"Authorization": "Bearer t"})
    assert endpoint.headers(None) == (("authorization", "Bearer t"),)
    assert endpoint.headers([("x-a", "1"), ("x-b-bin", b"2")]) == (
        ("authorization", "Bearer t"),
        ("x-a", "1"),
        ("x-b-bin", b"2"),
    )


def test_a_deadline_covers_all_that_a_call_needs() -> None:
    assert deadline_after(None) is None and seconds_until(None) is None
    assert seconds_until(deadline_after(-1)) == 0
    left = seconds_until(deadline_after(100))
    assert left is not None and 99 < left <= 100


def test_compression_is_grpcs(client: Client) -> None:
    options = ChannelOptions(compression=grpc.Compression.Gzip)
    with Client(client._endpoint.url, options=options) as compressing:
        assert compressing.infer("echo", {"x": [[1, 2]]})["x"].tolist() == [[1, 2]]
