"""The MindSpore network of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kubeyolo.bundle import BundleManifest
from kubeyolo.finite_arrays import check_finite
from kubeyolo.models.registry import build_model
from kubeyolo.runtime import configure_mindspore
from kubeyolo.weights.arrays import load_named
from kubeyolo.weights.fit import NamedArray
from kubeyolo.weights.safetensors_file import read_safetensors


def load_network(manifest: BundleManifest, weights: Path, device_target: str = "CPU", place: str = "") -> Any:
    """Build the detector of a bundle with its trained weights, for inference.

    Every call builds a fresh ``mindspore.nn.Cell``: exporting one instance twice is broken.

    Args:
        manifest: Names the model, its classes and its anchors.
        weights: A safetensors file with every parameter under its name in the network.
        device_target: CPU, GPU or Ascend.
        place: URI of the bundle, for messages; by default the file.

    Raises:
        InputError: The file is no safetensors file, its names or shapes are not those of the model, or a weight is
            infinite or no number.
    """
    configure_mindspore(device_target)
    network = build_model(manifest.model, len(manifest.classes), manifest.anchors, bn_eps=manifest.bn_eps)
    # One array at a time: all of them beside the network would take as much memory again.
    arrays, _ = read_safetensors(weights)
    what = f"{weights}: not the weights of {manifest.model} with {len(manifest.classes)} classes"
    load_named(network, {name: NamedArray(name, array) for name, array in arrays.items()}, what)
    # By name, as they lie in the file: the same array is named wherever the bundle is refused.
    parameters = sorted(network.get_parameters(), key=lambda parameter: str(parameter.name))
    loaded = ((parameter.name, parameter.asnumpy()) for parameter in parameters)
    check_finite(place or str(weights), loaded)
    network.set_train(False)
    return network
