"""Wire definitions of every dialect, the datatype table and the codec of the hot messages.

Nothing here knows a server or a client. Messages live in a private descriptor pool, so that this package can share
a process with any other that defines the same protocols.
"""
