"""trtserve-load: drives a server of the Open Inference Protocol and measures what comes back.

Needs the packages of the extra `load`; nothing else in the client does.
"""
