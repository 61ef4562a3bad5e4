"""Loading of named arrays into a network, all of them or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kubeyolo.errors import InputError
from kubeyolo.weights.names import from_yolov5

Layout = Literal["yolov5"]


def load_arrays(network: Any, arrays: Mapping[str, NDArray[Any]], layout: Layout = "yolov5") -> None:
    """Set every weight of a detector from arrays with the names of another program.

    Args:
        network: A detector of :func:`kubeyolo.models.registry.build_model`.
        arrays: Arrays by name, convolution weights as (out, in, kernel height, kernel width).
        layout: Whose names they are.

    Raises:
        InputError: A name is missing or unknown, or a shape differs; the network is then unchanged.
    """
    if layout != "yolov5":
        raise InputError(f"unknown weight layout {layout!r}; known: yolov5")
    named = {ours: name for name in arrays if (ours := from_yolov5(name, network.facts)) is not None}
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    _check(named, arrays, parameters, network.facts.name)
    from mindspore import Tensor

    for ours, name in named.items():
        parameters[ours].set_data(Tensor(np.ascontiguousarray(arrays[name], dtype=np.float32)))


def _check(
    named: Mapping[str, str], arrays: Mapping[str, NDArray[Any]], parameters: Mapping[str, Any], model: str
) -> None:
    faults = [f"missing {name} {tuple(parameters[name].shape)}" for name in parameters if name not in named]
    faults += [f"unknown {named[name]} {arrays[named[name]].shape}" for name in named if name not in parameters]
    for name in named.keys() & parameters.keys():
        have, want = arrays[named[name]].shape, tuple(parameters[name].shape)
        if have != want:
            faults.append(f"{named[name]} is {have}, must be {want}")
    if faults:
        shown = "; ".join(sorted(faults)[:5])
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise InputError(f"weights do not fit model {model!r}: {shown}{more}")
