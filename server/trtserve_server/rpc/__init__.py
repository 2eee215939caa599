"""The gRPC services. The only folder that knows protobuf's messages; uses nothing of gRPC but grpc.aio's public API."""
