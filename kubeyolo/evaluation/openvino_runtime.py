"""The ONNX files of a bundle, float or int8, in OpenVINO on the CPU."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from kubeyolo.arrays import Float32Array
from kubeyolo.bundle import BundleManifest
from kubeyolo.errors import InputError, one_line
from kubeyolo.evaluation.network_checks import check_onnx_file
from kubeyolo.evaluation.runtimes import INPUT_NAME, PREDICTIONS_NAME, Runtime, check_values
from kubeyolo.memory import is_lack_of_memory
from kubeyolo.resources import usable_processors


def has_openvino() -> bool:
    """Tell whether OpenVINO is installed."""
    return find_spec("openvino") is not None


def check_openvino(setting: str) -> None:
    """Refuse a setting that needs OpenVINO if it is not installed.

    Raises:
        InputError: OpenVINO is not installed.
    """
    if not has_openvino():
        raise InputError(f"{setting} needs OpenVINO, which is not installed here; install kubeyolo[openvino]")


class OpenvinoRuntime(Runtime):
    """An ONNX file, float or int8, in OpenVINO; it is compiled once for each batch size.

    A network that is compiled for any batch size is slower. Float networks compute in float32: on processors with AMX,
    OpenVINO computes in bfloat16 by default, which changes AP.
    """

    def __init__(self, path: Path, manifest: BundleManifest) -> None:
        check_openvino("this runtime")
        check_onnx_file(path, "OpenVINO")
        # OpenVINO sends an event when it is imported, and has no setting against it. Without the package of its
        # telemetry it sends none.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        import openvino

        self._core = openvino.Core()
        self._settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": usable_processors(),
            "NUM_STREAMS": 1,
        }
        self._path = path
        try:
            model = self._core.read_model(str(path))
        except RuntimeError as error:
            line = one_line((str(error).strip().splitlines() or [""])[-1], 200)
            raise InputError(f"{path}: OpenVINO cannot load it ({line}); export the model again") from error
        self._levels = [f"raw_{stride}" for stride in manifest.strides]
        outputs = [value.get_any_name() for value in model.outputs]
        check_values(path, [value.get_any_name() for value in model.inputs], outputs, self._levels)
        self._decodes = PREDICTIONS_NAME in outputs
        shape = model.inputs[0].partial_shape
        self.batch_size = None if shape[0].is_dynamic else shape[0].get_length()
        is_fixed = shape[2].is_static and shape[3].is_static
        self.image_size = (shape[2].get_length(), shape[3].get_length()) if is_fixed else None
        self._requests: dict[tuple[int, ...], Any] = {}

    def raw(self, images: Float32Array) -> list[Float32Array]:
        """See :meth:`Runtime.raw`."""
        return self._run(images, self._levels)

    def predictions(self, images: Float32Array) -> Float32Array | None:
        """See :meth:`Runtime.predictions`."""
        return self._run(images, [PREDICTIONS_NAME])[0] if self._decodes else None

    def _run(self, images: Float32Array, outputs: list[str]) -> list[Float32Array]:
        try:
            if images.shape not in self._requests:
                self._requests[images.shape] = self._compiled(images.shape)
            request = self._requests[images.shape]
            request.infer({INPUT_NAME: np.ascontiguousarray(images)})
        except RuntimeError as error:
            if is_lack_of_memory(str(error)):
                raise
            line = one_line((str(error).strip().splitlines() or [""])[-1], 200)
            raise InputError(f"{self._path}: OpenVINO cannot run it ({line}); export the model again") from error
        return [np.array(request.get_tensor(name).data, np.float32) for name in outputs]

    def _compiled(self, shape: tuple[int, ...]) -> Any:
        model = self._core.read_model(str(self._path))
        model.reshape({INPUT_NAME: list(shape)})
        return self._core.compile_model(model, "CPU", self._settings).create_infer_request()
