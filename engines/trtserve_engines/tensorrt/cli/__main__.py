"""`python -m trtserve_engines.tensorrt.cli` is `trtserve-build`: its commands, or what they lack."""

from trtserve_engines.command_line import packages_of_extra


def main() -> None:
    """Runs `trtserve-build`, whose packages a client alone does not have."""
    with packages_of_extra("server", "trtserve-build"):
        from trtserve_engines.tensorrt.cli import main as commands
    commands.main()


if __name__ == "__main__":
    main()
