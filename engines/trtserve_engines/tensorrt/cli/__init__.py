"""The command `trtserve-build`: builds engines and looks after the folder that they are kept in."""
