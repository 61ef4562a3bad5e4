"""The runtimes of a network: MindSpore and onnxruntime. Each runtime imports only its own library."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from kubeyolo.arrays import Float32Array
from kubeyolo.bundle import BundleManifest
from kubeyolo.errors import InputError, one_line
from kubeyolo.evaluation.network_checks import check_levels, check_onnx_file, check_predictions
from kubeyolo.memory import is_lack_of_memory
from kubeyolo.resources import usable_processors

INPUT_NAME = "images"
PREDICTIONS_NAME = "predictions"

_LONGEST = 200


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


def check_values(path: Path, inputs: list[str], outputs: list[str], levels: list[str]) -> None:
    """Refuse an ONNX file that is not a detector of kubeyolo.

    Raises:
        InputError: The file has other inputs, or lacks the output of a level.
    """
    if inputs != [INPUT_NAME] or not set(levels).issubset(outputs):
        found = f"inputs {one_line(inputs, _LONGEST)} and outputs {one_line(outputs, _LONGEST)}"
        raise InputError(f"{path}: {found}, expected {[INPUT_NAME]} and {levels}; export the model again")


def open_session(path: Path) -> Any:
    """Return a session of onnxruntime for an ONNX file.

    Raises:
        InputError: The file is not whole, or onnxruntime cannot load it.
    """
    check_onnx_file(path)
    try:
        return onnx_session(str(path))
    except Exception as error:  # onnxruntime's errors have no public base class
        line = one_line(error, _LONGEST)
        raise InputError(f"{path}: onnxruntime cannot load it ({line}); export the model again") from error


def onnx_session(model: str | bytes) -> Any:
    """Return a session of onnxruntime on the processors that this process may use, for a file or its content."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_processors()
    options.inter_op_num_threads = 1
    # Other threads read images while the network runs: spinning would take their cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Without VNNI, sums of products of uint8 and int8 would saturate at 16 bits: with this option they do not.
    options.add_session_config_entry("session.x64quantprecision", "1")
    # Errors are raised, so nothing less than fatal is printed.
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class OnnxRuntime(Runtime):
    """An ONNX file, float or int8, on the CPU."""

    def __init__(self, path: Path, manifest: BundleManifest) -> None:
        self._path = path
        self._session = open_session(path)
        self._levels = [f"raw_{stride}" for stride in manifest.strides]
        outputs = {value.name: value for value in self._session.get_outputs()}
        check_values(path, [value.name for value in self._session.get_inputs()], list(outputs), self._levels)
        self._decodes = PREDICTIONS_NAME in outputs
        only = self._session.get_inputs()[0]
        channels = only.shape[1] if len(only.shape) == 4 else 0
        if only.type != "tensor(float)" or (isinstance(channels, int) and channels != 3):
            raise InputError(
                f"{path}: its input is {only.type} of shape {one_line(only.shape, _LONGEST)}, expected float32 of "
                "shape (N, 3, H, W); export the model again"
            )
        batch, _, height, width = only.shape
        self.batch_size = batch if isinstance(batch, int) else None
        is_fixed = isinstance(height, int) and isinstance(width, int)
        self.image_size = (height, width) if is_fixed else None

    def raw(self, images: Float32Array) -> list[Float32Array]:
        """See :meth:`Runtime.raw`."""
        return self._run(self._levels, images)

    def predictions(self, images: Float32Array) -> Float32Array | None:
        """See :meth:`Runtime.predictions`."""
        if not self._decodes:
            return None
        return self._run([PREDICTIONS_NAME], images)[0]

    def check_classes(self, manifest: BundleManifest) -> None:
        """Refuse a network with the outputs of another number of classes, if its file states their shapes.

        Raises:
            InputError: The message has the shape of the output.
        """
        attributes = 5 + len(manifest.classes)
        # Raw levels of a network that decodes its outputs are compared when they are needed.
        used = [PREDICTIONS_NAME] if self._decodes else self._levels
        for output in self._session.get_outputs():
            shape = output.shape
            if output.name not in used or not shape or not isinstance(shape[-1], int):
                continue
            if shape[-1] != attributes:
                raise InputError(
                    f"{self._path}: output {output.name} has the shape {one_line(shape, _LONGEST)}, but the bundle has "
                    f"{len(manifest.classes)} classes, which need {attributes} numbers for a box; export the "
                    "model again"
                )

    def _run(self, names: list[str], images: Float32Array) -> list[Float32Array]:
        try:
            return list(self._session.run(names, {INPUT_NAME: images}))
        except Exception as error:  # onnxruntime's errors have no public base class
            if is_lack_of_memory(f"{type(error).__name__}: {error}"):
                raise
            line = one_line(error, _LONGEST)
            raise InputError(f"{self._path}: onnxruntime cannot run it ({line}); export the model again") from error


class CheckedRuntime(Runtime):
    """The network of an exported file, whose outputs are compared with the manifest of its bundle.

    Args:
        runtime: Runs the network.
        path: The file, for messages.
        manifest: The manifest of the bundle.
    """

    def __init__(self, runtime: Runtime, path: Path, manifest: BundleManifest) -> None:
        self._runtime, self._path, self._manifest = runtime, path, manifest
        self.batch_size, self.image_size = runtime.batch_size, runtime.image_size

    def raw(self, images: Float32Array) -> list[Float32Array]:
        """See :meth:`Runtime.raw`.

        Raises:
            InputError: The outputs do not fit the strides, anchors and classes of the bundle.
        """
        levels = self._runtime.raw(images)
        check_levels(self._path, levels, images.shape, self._manifest)
        return levels

    def predictions(self, images: Float32Array) -> Float32Array | None:
        """See :meth:`Runtime.predictions`.

        Raises:
            InputError: The output does not fit the classes of the bundle.
        """
        decoded = self._runtime.predictions(images)
        if decoded is not None:
            check_predictions(self._path, decoded, len(images), self._manifest)
        return decoded
