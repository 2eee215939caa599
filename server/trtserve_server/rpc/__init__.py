"""The gRPC services. The only folder that knows protobuf's messages; of gRPC it sees `transport.call` and statuses."""
