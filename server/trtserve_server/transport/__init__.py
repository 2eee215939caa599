"""gRPC itself: how calls come in and answers go out. Knows no service and no model.

There are two servers with the surface of grpc.aio's: ours on the completion queue of gRPC's C core, and grpc.aio's
own, for a grpcio that does not show that queue.
"""
