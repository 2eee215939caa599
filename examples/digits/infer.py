"""Classifies one scan: python examples/digits/infer.py examples/digits/seven.png"""

import sys

import numpy as np
from PIL import Image

from trtserve_client import Client

image = np.asarray(Image.open(sys.argv[1]), np.float32)[None, None]
with Client(*sys.argv[2:]) as client:
    probabilities = client.infer("digits", {"image": image})["probabilities"][0]
print(f"{probabilities.argmax()} with probability {probabilities.max():.4f}")
