"""The scheduling core: requests in, batches to instances, answers out. Knows no gRPC, no asyncio and no clock."""
