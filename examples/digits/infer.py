"""Prints the likeliest classes of one scan: python examples/digits/infer.py examples/digits/seven.png"""

import sys

import numpy as np
from PIL import Image

from trtserve_client import Client

scan, *url = sys.argv[1:] or ["examples/digits/seven.png"]
image = np.asarray(Image.open(scan), np.float32)[None, None]
with Client(*url) as client:
    result = client.infer("digits", {"image": image}, outputs={"probabilities": {"classification": 3}})
print(*(entry.decode() for entry in result["probabilities"][0]), sep="\n")
