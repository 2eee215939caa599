"""The server: configuration, models, scheduling and the gRPC services, top down: cli, app, rpc, models, scheduling."""

__version__ = "0.1.0"
