"""`python -m trtserve_engines.tensorrt.cli` is `trtserve-build`; says how to install what it needs."""

from trtserve_engines.command_line import packages_of


def main() -> None:
    """Runs the command that the process was started with; see `main.main`."""
    with packages_of("server", "trtserve-build"):
        from trtserve_engines.tensorrt.cli.main import main as run
    run()


if __name__ == "__main__":
    main()
