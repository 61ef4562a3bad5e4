"""The MindSpore network of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kubeyolo.bundle import BundleManifest
from kubeyolo.errors import InputError
from kubeyolo.models.registry import build_model
from kubeyolo.runtime import configure_mindspore


def load_network(manifest: BundleManifest, weights: Path, device_target: str = "CPU") -> Any:
    """Build the detector of a bundle with its trained weights, for inference.

    Every call builds a fresh ``mindspore.nn.Cell``: exporting one instance twice is broken.

    Args:
        manifest: Names the model, its classes and its anchors.
        weights: A safetensors file with every parameter under its name in the network.
        device_target: CPU, GPU or Ascend.

    Raises:
        InputError: The file is no safetensors file, or its names or shapes are not those of the model.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    configure_mindspore(device_target)
    from mindspore import Tensor

    network = build_model(manifest.model, len(manifest.classes), manifest.anchors, bn_eps=manifest.bn_eps)
    try:
        arrays = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{weights}: not a readable safetensors file ({error}); train the model again") from error
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    for name, parameter in parameters.items():
        if name not in arrays:
            raise InputError(f"{weights}: no weights of {name!r}; the file is not of a {manifest.model}")
        if arrays[name].shape != tuple(parameter.shape):
            raise InputError(
                f"{weights}: {name!r} has shape {arrays[name].shape}, {manifest.model} with "
                f"{len(manifest.classes)} classes has {tuple(parameter.shape)}"
            )
        parameter.set_data(Tensor(arrays[name]))
    unknown = sorted(arrays.keys() - parameters.keys())
    if unknown:
        raise InputError(f"{weights}: {unknown[0]!r} is no parameter of {manifest.model}")
    network.set_train(False)
    return network
