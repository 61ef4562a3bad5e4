"""The networks of a bundle that MindSpore runs: the trained network and the MINDIR file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kubeyolo.arrays import Float32Array, check_finite
from kubeyolo.bundle import BundleManifest
from kubeyolo.config.section import MOST_PIXELS
from kubeyolo.errors import InputError, one_line
from kubeyolo.evaluation.network_checks import check_mindir_file
from kubeyolo.evaluation.runtimes import CellRuntime
from kubeyolo.memory import is_lack_of_memory
from kubeyolo.models.registry import build_model
from kubeyolo.runtime import configure_mindspore
from kubeyolo.weights.fit import NamedArray, load_named
from kubeyolo.weights.safetensors_file import read_safetensors

_LONGEST = 200


class MindirRuntime(CellRuntime):
    """A MINDIR file, which accepts only images of the shape that it was exported with.

    Args:
        path: The file.
        device_target: CPU or Ascend.

    Raises:
        InputError: The file reads other files, has tensors of wrong lengths, or MindSpore cannot load it.
    """

    def __init__(self, path: Path, device_target: str = "CPU") -> None:
        check_mindir_file(path)
        configure_mindspore(device_target)
        import mindspore
        from mindspore import nn

        self._path = path
        self.batch_size, _, *size = mindir_input_shape(path)
        self.image_size = (size[0], size[1])
        try:
            network = nn.GraphCell(mindspore.load(str(path)))
        except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            line = one_line(error, _LONGEST)
            raise InputError(f"{path}: MindSpore cannot load it ({line}); export the model again") from error
        super().__init__(network)

    def raw(self, images: Float32Array) -> list[Float32Array]:
        """See :meth:`Runtime.raw`.

        Raises:
            InputError: MindSpore cannot run the network.
        """
        try:
            return super().raw(images)
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            if is_lack_of_memory(f"{type(error).__name__}: {error}"):
                raise
            line = one_line(error, _LONGEST)
            raise InputError(f"{self._path}: MindSpore cannot run it ({line}); export the model again") from error


def load_network(manifest: BundleManifest, weights: Path, device_target: str = "CPU", uri: str = "") -> Any:
    """Build the detector of a bundle with its trained weights, for inference.

    Every call builds a fresh ``mindspore.nn.Cell``, since MindSpore cannot export the same instance twice.

    Args:
        manifest: Names the model, its classes and its anchors.
        weights: A safetensors file with every parameter under its name in the network.
        device_target: CPU or Ascend.
        uri: URI of the bundle, for messages; by default the path of the file.

    Raises:
        InputError: The file is not a safetensors file, its names or shapes do not fit the model, or a weight is not
            finite.
    """
    configure_mindspore(device_target)
    network = build_model(manifest.model, len(manifest.classes), manifest.anchors, bn_eps=manifest.bn_eps)
    # One array at a time: all arrays in addition to the network would double the memory.
    arrays, _ = read_safetensors(weights)
    what = f"{weights}: not the weights of {manifest.model} with {len(manifest.classes)} classes"
    load_named(network, {name: NamedArray(name, array) for name, array in arrays.items()}, what)
    # Sorted by name, as in the file, so that every error about the bundle names the same array.
    parameters = sorted(network.get_parameters(), key=lambda parameter: str(parameter.name))
    loaded = ((parameter.name, parameter.asnumpy()) for parameter in parameters)
    check_finite(uri or str(weights), loaded)
    network.set_train(False)
    return network


def mindir_input_shape(path: Path) -> tuple[int, ...]:
    """Return the shape (N, 3, H, W) that a MINDIR file was exported with.

    Raises:
        InputError: The file is not MINDIR, or does not have a single image input.
    """
    from mindspore.train import mind_ir_pb2

    model = mind_ir_pb2.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
        shapes = [tuple(tensor.dims) for value in model.graph.input for tensor in value.tensor]
    except Exception as error:  # protobuf's errors have no public base class
        line = one_line(error, _LONGEST)
        raise InputError(f"{path}: not a readable MINDIR file ({line}); export the model again") from error
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1] != 3 or not all(map(_is_side, shapes[0])):
        found = one_line(shapes, _LONGEST)
        raise InputError(
            f"{path}: inputs of shapes {found}, expected one input of shape (N, 3, H, W); export the model again"
        )
    return shapes[0]


def _is_side(length: int) -> bool:
    return 1 <= length <= MOST_PIXELS
