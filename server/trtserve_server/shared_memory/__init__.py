"""Memory that clients share with the server: the regions they registered, and tensors that lie in them.

A region of system memory is mapped once, and lone requests are read and written there. A client may cut its memory off
at any time, which would end the process that touches it (SIGBUS): `sigbus_guard` sees to it that it ends that request
alone. Everything else is copied by calls to the kernel, which only come back short: batches, types that engines read
as places or sizes, and whatever lies where no engine takes it. A client may also change its memory at any time; what
has to be checked is therefore copied first.
"""
