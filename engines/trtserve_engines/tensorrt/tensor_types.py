"""TensorRT's types of inputs and outputs and what numpy calls them; nothing else knows both.

By name: TensorRT gave some names of its enums other numbers between its versions 10 and 11.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

NUMPY_TYPES = {
    "FLOAT": np.dtype(np.float32),
    "HALF": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "INT8": np.dtype(np.int8),
    "UINT8": np.dtype(np.uint8),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "BOOL": np.dtype(np.bool_),
}
