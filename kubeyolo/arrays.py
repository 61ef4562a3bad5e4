"""Types of arrays by what they hold; docstrings give the shapes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
Int64Array = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

Pixels = NDArray[np.uint8]
"""An image (height, width, 3), or one channel of it (height, width)."""
