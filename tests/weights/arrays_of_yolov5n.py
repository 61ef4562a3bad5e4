"""Random weights of yolov5n-r7 under the names of the program it is from."""

from __future__ import annotations

from functools import cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from kubeyolo.weights.names import to_layout
from kubeyolo.weights.network_parameters import NetworkParameters, network_parameters

MODEL = "yolov5n-r7"


@cache
def network() -> NetworkParameters:
    return network_parameters(MODEL)


@cache
def _arrays(classes: int, seed: int) -> MappingProxyType[str, NDArray[np.float32]]:
    generator = np.random.default_rng(seed)
    of = network().with_classes(classes)
    return MappingProxyType(
        {
            to_layout(name, of.facts, "yolov5"): generator.standard_normal(shape, dtype=np.float32)
            for name, shape in of.shapes.items()
        }
    )


def upstream_arrays(classes: int = 3, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Return arrays by upstream name; a fresh dict each time."""
    return dict(_arrays(classes, seed))
