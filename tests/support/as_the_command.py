"""Servers in this process listen as those of the command `trtserve` do: to be imported before gRPC is."""

import os
import sys

from trtserve_server.grpc_listener import prefer_quick_listener

assert "grpc" not in sys.modules, "gRPC has read its variable already"
prefer_quick_listener(os.environ)
