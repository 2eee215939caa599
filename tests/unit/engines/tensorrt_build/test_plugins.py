"""What runs as native code, only the server's own configuration may name."""

import pytest

from trtserve_engines.config import ConfigError
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.plugins import check_allowed


def with_plugins(*paths):
    return BuildConfig(plugins=tuple(map(str, paths)))


def test_a_listed_library_is_allowed_through_links_too(tmp_path):
    library = tmp_path / "a.so"
    library.write_bytes(b"x")
    (tmp_path / "link.so").symlink_to(library)
    check_allowed(with_plugins(tmp_path / "link.so"), with_plugins(library))
    check_allowed(BuildConfig(), BuildConfig())


@pytest.mark.parametrize("allowed", [[], ["/opt/b.so"]])
def test_any_other_is_refused(allowed):
    with pytest.raises(ConfigError, match="/opt/a.so is not among those that the server allows"):
        check_allowed(with_plugins("/opt/a.so"), with_plugins(*allowed))


def test_a_path_that_climbs_out_is_seen_through():
    with pytest.raises(ConfigError, match="not among"):
        check_allowed(with_plugins("/opt/plugins/../evil.so"), with_plugins("/opt/plugins/good.so"))


def test_a_tool_to_run_is_the_servers_or_none():
    server = BuildConfig(modelopt_python="/opt/modelopt/bin/python")
    check_allowed(BuildConfig(), server)
    check_allowed(server, server)
    with pytest.raises(ConfigError, match="modelopt_python = '/tmp/python' names a program"):
        check_allowed(BuildConfig(modelopt_python="/tmp/python"), server)
