"""`python -m trtserve_engines.tensorrt.cli` is `trtserve-build`."""

from trtserve_engines.tensorrt.cli.main import main

if __name__ == "__main__":
    main()
