"""Imports tritonclient and trtserve_client into this one process, in the order given, and calls with both.

Arguments: "triton-first" or "ours-first", the server's address, a .npy file with a batch of digits. Prints "same".
"""

import sys

import numpy as np

ORDER, URL, BATCH = sys.argv[1:]

if ORDER == "triton-first":
    import tritonclient.grpc as triton
    from trtserve_client import Client
else:
    from trtserve_client import Client
    import tritonclient.grpc as triton

images = np.load(BATCH)

with Client(URL) as client:
    ours = client.infer("digits", {"image": images})["probabilities"]

stock = triton.InferenceServerClient(URL)
tensor = triton.InferInput("image", list(images.shape), "FP32")
tensor.set_data_from_numpy(images)
theirs = stock.infer("digits", [tensor]).as_numpy("probabilities")
stock.close()

assert ours.dtype == theirs.dtype and ours.shape == theirs.shape == (len(images), 10)
assert np.array_equal(ours, theirs)
assert list(theirs.argmax(axis=1)) == list(range(10))
print("same")
