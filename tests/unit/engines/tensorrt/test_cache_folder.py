"""Where engines are kept, and which folders are refused."""

import os
from pathlib import Path

import pytest

from trtserve_engines.errors import EngineCacheError
from trtserve_engines.tensorrt.cache_folder import default_folder, prepare_folder, read_secret


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"XDG_CACHE_HOME": "/c", "HOME": "/h"}, "/c/trtserve/engines"),
        ({"HOME": "/h"}, "/h/.cache/trtserve/engines"),
        ({"XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/trtserve/engines"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/trtserve/engines"),
    ],
)
def test_the_default_is_the_users_cache(environment, folder):
    assert default_folder(environment) == Path(folder)


def test_a_missing_folder_is_made_for_its_user_alone(tmp_path):
    prepare_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o702, 0o710])
def test_a_folder_that_is_open_to_others_is_refused_with_what_to_do(tmp_path, mode):
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(EngineCacheError, match=f"open to other users .mode 0{mode:o}.* run chmod 700 {folder}"):
        prepare_folder(folder)


def test_a_folder_of_another_user_is_refused_with_what_to_do(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(folder, 1, -1)
    else:
        folder = Path("/usr")  # root's; who is not root can give nothing away
    owner, user = folder.stat().st_uid, os.geteuid()
    with pytest.raises(EngineCacheError, match=f"belongs to user {owner}, trtserve runs as user {user}.* run chown"):
        prepare_folder(folder)


def test_a_file_in_the_way_is_said(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(EngineCacheError, match="cannot be made.* choose another with --engine-cache"):
            prepare_folder(folder)


def test_the_secret_is_read_without_its_newline(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"0123456789abcdef\n")
    path.chmod(0o600)
    assert read_secret(path) == b"0123456789abcdef"


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [(b"0123456789abcdef", 0o604, "mode 0604.*chmod 600"), (b"short", 0o600, "has 5 bytes; at least 16")],
)
def test_a_secret_that_protects_nothing_is_refused(tmp_path, content, mode, message):
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(EngineCacheError, match=message):
        read_secret(path)


def test_a_missing_secret_is_said(tmp_path):
    with pytest.raises(EngineCacheError, match="key .* cannot be read: No such file"):
        read_secret(tmp_path / "key")
