"""What runs a network: MindSpore, a MINDIR file, or onnxruntime. Each runtime imports its own library only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from kubeyolo.arrays import Float32Array
from kubeyolo.bundle import BundleManifest
from kubeyolo.errors import InputError
from kubeyolo.processors import usable_processors

INPUT_NAME = "images"
PREDICTIONS_NAME = "predictions"


class Runtime(ABC):
    """A network ready to run on batches of images.

    Attributes:
        batch_size: The only batch size it takes, or None for any.
        image_size: The only height and width it takes, or None for any multiple of the largest stride.
    """

    batch_size: int | None = None
    image_size: tuple[int, int] | None = None

    @abstractmethod
    def raw(self, images: Float32Array) -> list[Float32Array]:
        """Map images (N, 3, H, W) in 0..1 to one raw (N, na, ny, nx, 5+nc) array a level."""

    def predictions(self, images: Float32Array) -> Float32Array | None:
        """Return (N, boxes, 5+nc) as decoded by the network itself, or None when it does not decode."""
        return None


class CellRuntime(Runtime):
    """A MindSpore network, compiled once for each shape."""

    def __init__(self, network: Any) -> None:
        self._network = network

    def raw(self, images: Float32Array) -> list[Float32Array]:
        """See :meth:`Runtime.raw`."""
        from mindspore import Tensor

        return [level.asnumpy() for level in self._network(Tensor(images))]


class MindirRuntime(CellRuntime):
    """A MINDIR file, for the one shape it was exported with."""

    def __init__(self, path: Path, manifest: BundleManifest, device_target: str = "CPU") -> None:
        from kubeyolo.runtime import configure_mindspore

        configure_mindspore(device_target)
        import mindspore
        from mindspore import nn

        self.batch_size, _, *size = mindir_input_shape(path)
        self.image_size = (size[0], size[1])
        super().__init__(nn.GraphCell(mindspore.load(str(path))))


class OnnxRuntime(Runtime):
    """An ONNX file, float or int8, on the CPU."""

    def __init__(self, path: Path, manifest: BundleManifest, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or usable_processors()
        options.inter_op_num_threads = 1
        # Threads that read images run beside the network: spinning would take their cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises classes of its own that share no public base
            line = str(error).splitlines()[0]
            raise InputError(f"{path}: onnxruntime cannot load it ({line}); export the model again") from error
        self._levels = [f"raw_{stride}" for stride in manifest.strides]
        given = [one.name for one in self._session.get_inputs()]
        made = [one.name for one in self._session.get_outputs()]
        missing = [name for name in self._levels if name not in made]
        if given != [INPUT_NAME] or missing:
            raise InputError(
                f"{path}: inputs {given} and outputs {made}, expected {[INPUT_NAME]} and {self._levels}; "
                "export the model again"
            )
        self._decodes = PREDICTIONS_NAME in made
        batch, _, height, width = self._session.get_inputs()[0].shape
        self.batch_size = batch if isinstance(batch, int) else None
        self.image_size = (height, width)

    def raw(self, images: Float32Array) -> list[Float32Array]:
        """See :meth:`Runtime.raw`."""
        return list(self._session.run(self._levels, {INPUT_NAME: images}))

    def predictions(self, images: Float32Array) -> Float32Array | None:
        """See :meth:`Runtime.predictions`."""
        if not self._decodes:
            return None
        decoded: Float32Array = self._session.run([PREDICTIONS_NAME], {INPUT_NAME: images})[0]
        return decoded


def mindir_input_shape(path: Path) -> tuple[int, ...]:
    """Return the shape (N, 3, H, W) that a MINDIR file was exported with.

    Raises:
        InputError: The file is not MINDIR, or has not one image input.
    """
    from mindspore.train import mind_ir_pb2

    model = mind_ir_pb2.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
        shapes = [tuple(tensor.dims) for one in model.graph.input for tensor in one.tensor]
    except Exception as error:  # protobuf's own error has no base that is public
        raise InputError(f"{path}: not a readable MINDIR file ({error}); export the model again") from error
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise InputError(f"{path}: inputs of shapes {shapes}, expected one (N, 3, H, W); export the model again")
    return shapes[0]
