"""`python -m trtserve_server` is `trtserve`."""

from trtserve_server.cli import main

if __name__ == "__main__":
    main()
