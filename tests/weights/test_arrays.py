"""Loading of arrays under upstream names: all of them, or none with a message."""

from __future__ import annotations

import numpy as np
import pytest

from kubeyolo.errors import InputError
from kubeyolo.models.registry import build_model
from kubeyolo.weights.fit import load_arrays
from kubeyolo.weights.names import to_layout


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("model.24.m.0.bias", None, r"missing head\.m\.0\.bias \(24,\)"),
        ("model.24.m.0.bias", (25,), r"model\.24\.m\.0\.bias is \(25,\), must be \(24,\)"),
        ("model.99.bias", (3,), r"unknown model\.99\.bias \(3,\)"),
    ],
)
def test_misfit_is_refused_and_changes_nothing(name: str, shape: tuple[int, ...] | None, message: str) -> None:
    network = build_model("yolov5n-r7", 3)
    before = {parameter.name: parameter.asnumpy().copy() for parameter in network.get_parameters()}
    arrays = {
        to_layout(ours, network.facts, "yolov5"): np.full(values.shape, 2, np.float32)
        for ours, values in before.items()
    }
    load_arrays(build_model("yolov5n-r7", 3), arrays)
    arrays.pop(name, None)
    if shape is not None:
        arrays[name] = np.ones(shape, np.float32)
    with pytest.raises(InputError, match=message):
        load_arrays(network, arrays)
    for parameter in network.get_parameters():
        np.testing.assert_array_equal(parameter.asnumpy(), before[parameter.name])
