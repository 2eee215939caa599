"""Plugin libraries run as native code: only those that the operator listed."""

import hashlib

import pytest

from trtserve_engines.config import ConfigError
from trtserve_engines.errors import BackendUnavailableError
from trtserve_engines.tensorrt.plugins import check_allowed, plugin_digests


def test_a_listed_library_is_allowed_through_links_too(tmp_path):
    library = tmp_path / "a.so"
    library.write_bytes(b"x")
    (tmp_path / "link.so").symlink_to(library)
    check_allowed([str(tmp_path / "link.so")], [str(library)])
    check_allowed([], [])


@pytest.mark.parametrize("allowed", [[], ["/opt/b.so"]])
def test_any_other_is_refused(allowed):
    with pytest.raises(ConfigError, match="/opt/a.so is not among those that are allowed"):
        check_allowed(["/opt/a.so"], allowed)


def test_a_path_that_climbs_out_is_seen_through():
    with pytest.raises(ConfigError, match="not among"):
        check_allowed(["/opt/plugins/../evil.so"], ["/opt/plugins/good.so"])


def test_digests_are_of_the_bytes(tmp_path):
    (tmp_path / "a.so").write_bytes(b"code")
    assert plugin_digests([str(tmp_path / "a.so")]) == [hashlib.sha256(b"code").hexdigest()]
    with pytest.raises(BackendUnavailableError, match="missing.so is not there"):
        plugin_digests([str(tmp_path / "missing.so")])
