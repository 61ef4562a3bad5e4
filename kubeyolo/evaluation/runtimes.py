"""The runtimes of a network: MindSpore and onnxruntime. Each runtime imports only its own library."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from kubeyolo.arrays import Float32Array
from kubeyolo.bundle import BundleManifest
from kubeyolo.errors import InputError
from kubeyolo.resources import usable_processors

INPUT_NAME = "images"
PREDICTIONS_NAME = "predictions"


class Runtime(ABC):
    """A network ready to run on batches of images.

    Attributes:
        batch_size: The only batch size it accepts, or None if it accepts any.
        image_size: The only height and width it accepts, or None if it accepts any multiple of the largest stride.
    """

    batch_size: int | None = None
    image_size: tuple[int, int] | None = None

    @abstractmethod
    def raw(self, images: Float32Array) -> list[Float32Array]:
        """Map images (N, 3, H, W) in 0..1 to a raw (N, na, ny, nx, 5+nc) array for each level."""

    def predictions(self, images: Float32Array) -> Float32Array | None:
        """Return the predictions (N, boxes, 5+nc) of a network that decodes its outputs itself; otherwise None."""
        return None


class CellRuntime(Runtime):
    """A MindSpore network, compiled once for each shape."""

    def __init__(self, network: Any) -> None:
        self._network = network

    def raw(self, images: Float32Array) -> list[Float32Array]:
        """See :meth:`Runtime.raw`."""
        from mindspore import Tensor

        return [level.asnumpy() for level in self._network(Tensor(images))]


class OnnxRuntime(Runtime):
    """An ONNX file, float or int8, on the CPU."""

    def __init__(self, path: Path, manifest: BundleManifest) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = usable_processors()
        options.inter_op_num_threads = 1
        # Other threads read images while the network runs: spinning would take their cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Without VNNI, sums of products of uint8 and int8 would saturate at 16 bits: with this option they do not.
        options.add_session_config_entry("session.x64quantprecision", "1")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no public base class
            line = str(error).splitlines()[0]
            raise InputError(f"{path}: onnxruntime cannot load it ({line}); export the model again") from error
        self._levels = [f"raw_{stride}" for stride in manifest.strides]
        inputs = [value.name for value in self._session.get_inputs()]
        outputs = [value.name for value in self._session.get_outputs()]
        if inputs != [INPUT_NAME] or not set(self._levels).issubset(outputs):
            raise InputError(
                f"{path}: inputs {inputs} and outputs {outputs}, expected {[INPUT_NAME]} and {self._levels}; "
                "export the model again"
            )
        self._decodes = PREDICTIONS_NAME in outputs
        batch, _, height, width = self._session.get_inputs()[0].shape
        self.batch_size = batch if isinstance(batch, int) else None
        is_fixed = isinstance(height, int) and isinstance(width, int)
        self.image_size = (height, width) if is_fixed else None

    def raw(self, images: Float32Array) -> list[Float32Array]:
        """See :meth:`Runtime.raw`."""
        return list(self._session.run(self._levels, {INPUT_NAME: images}))

    def predictions(self, images: Float32Array) -> Float32Array | None:
        """See :meth:`Runtime.predictions`."""
        if not self._decodes:
            return None
        decoded: Float32Array = self._session.run([PREDICTIONS_NAME], {INPUT_NAME: images})[0]
        return decoded
