"""Classifies every scan of this folder over one stream: python examples/digits/stream.py"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from trtserve_client import Client

files = sorted(Path(__file__).parent.glob("*.png"))
scans = {file.stem: np.asarray(Image.open(file), np.float32)[None, None] for file in files}
with Client(*sys.argv[1:]) as client:
    for result in client.stream("digits", ((name, {"image": image}) for name, image in scans.items())):
        print(f"{result.id:>6} is {result['probabilities'].argmax()}")
