"""Loading of named arrays into a network, all of them or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from kubeyolo.weights.fit import NamedArray, check_fit, name_arrays
from kubeyolo.weights.names import Layout, from_layout
from kubeyolo.weights.stored_array import as_float32


def load_arrays(network: Any, arrays: Mapping[str, NDArray[Any]], layout: Layout = "yolov5") -> None:
    """Set every weight of a detector from arrays with the names of another program.

    Args:
        network: A detector of :func:`kubeyolo.models.registry.build_model`.
        arrays: Arrays by name, convolution weights as (out, in, kernel height, kernel width).
        layout: Whose names they are.

    Raises:
        InputError: A name is missing or unknown, or a shape differs; the network is then unchanged.
    """
    pairs = [
        (ours, NamedArray(name, array))
        for name, array in arrays.items()
        if (ours := from_layout(name, network.facts, layout)) is not None
    ]
    load_named(network, name_arrays(pairs), f"weights do not fit model {network.facts.name!r}")


def load_named(network: Any, arrays: Mapping[str, NamedArray], what: str) -> None:
    """Set every parameter of a network from arrays under its own names, one at a time.

    Args:
        network: A MindSpore cell.
        arrays: Arrays in memory or in a file; of those in a file one at a time is in memory.
        what: Beginning of the message when they do not fit.

    Raises:
        WeightsMismatch: A name is missing or unknown, or a shape differs; the network is then unchanged.
    """
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    check_fit(arrays, {name: tuple(parameter.shape) for name, parameter in parameters.items()}, what)
    from mindspore import Tensor

    for name, parameter in parameters.items():
        parameter.set_data(Tensor(as_float32(arrays[name].array)))
