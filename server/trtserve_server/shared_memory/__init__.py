"""Memory that clients share with the server: the regions they registered, and tensors that lie in them.

Nothing here maps a client's memory. It is read and written by calls to the kernel, one copy each way, because a mapped
page that the client has cut off kills the process that touches it (SIGBUS), while a call only comes back short. A copy
is also what makes checking worthwhile: the client may change its memory at any time, ours it cannot.
"""
