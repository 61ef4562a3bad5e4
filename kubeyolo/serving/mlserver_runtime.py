"""A runtime of MLServer, which KServe starts in a pod: the open inference protocol (v2) over REST and gRPC.

MLServer finds it by the name ``kubeyolo.serving.mlserver_runtime.DetectorRuntime``, in the setting ``implementation``
of a model. The setting ``parameters.uri`` is the URI or reference of a bundle, or of a pointer to the current model;
``parameters.extra.runtime`` is ``onnx`` or ``int8``.

A request has one input, ``images`` (N,) of BYTES: files of images, over REST as base64 texts. The parameters
``conf_threshold`` and ``iou_threshold`` of the request are optional. A response has the outputs ``image`` (k,) INT64,
``boxes`` (k, 4) FP32, ``scores`` (k,) FP32 and ``classes`` (k,) BYTES; see :class:`FoundBoxes`.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from mlserver import MLModel
from mlserver.errors import MLServerError
from mlserver.types import InferenceRequest, InferenceResponse, Parameters, RequestInput, ResponseOutput

from kubeyolo.errors import InputError
from kubeyolo.evaluation.results import check_runtime
from kubeyolo.serving.detector import FoundBoxes, ServedDetector

INPUT = "images"


class DetectorRuntime(MLModel):
    """A detector of a bundle as a model of MLServer."""

    async def load(self) -> bool:
        """Load the bundle that the settings name.

        Raises:
            InputError: The settings name no bundle, or it cannot be used.
        """
        parameters = self.settings.parameters
        if parameters is None or not parameters.uri:
            raise InputError(f"model {self.name}: parameters.uri is not set; set it to the URI of a bundle")
        runtime = check_runtime(str((parameters.extra or {}).get("runtime", "onnx")))
        if runtime not in ("onnx", "int8"):
            raise InputError(f"model {self.name}: runtime = {runtime}: serving has the runtimes onnx and int8")
        self._detector = await asyncio.to_thread(ServedDetector.of, parameters.uri, runtime)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Find objects in the images of a request.

        Raises:
            MLServerError: The request cannot be used; the status is 400.
        """
        try:
            images = _images(payload.inputs)
            values = _values(payload.parameters)
            found = await asyncio.to_thread(
                self._detector.detect, images, values.get("conf_threshold"), values.get("iou_threshold")
            )
        except InputError as error:
            raise MLServerError(str(error), HTTPStatus.BAD_REQUEST) from error
        return InferenceResponse(
            id=payload.id, model_name=self.name, model_version=self.version, outputs=_outputs(found)
        )


def _images(inputs: list[RequestInput]) -> list[bytes | str]:
    """Return the images of a request.

    Raises:
        InputError: The request has no input ``images`` of BYTES, or other inputs.
    """
    if [each.name for each in inputs] != [INPUT] or inputs[0].datatype != "BYTES":
        given = ", ".join(f"{each.name} ({each.datatype})" for each in inputs)
        raise InputError(f"inputs of the request: {given or 'none'}; expected {INPUT} (BYTES)")
    images = [*inputs[0].data.root]
    if not all(isinstance(image, (bytes, str)) for image in images) or inputs[0].shape[:1] != [len(images)]:
        raise InputError(f"{INPUT}: shape {inputs[0].shape} with {len(images)} values; expected a text for each image")
    return images


def _values(parameters: Parameters | None) -> dict[str, Any]:
    return parameters.model_dump() if parameters is not None else {}


def _outputs(found: FoundBoxes) -> list[ResponseOutput]:
    count = len(found.scores)
    return [
        ResponseOutput(name="image", shape=[count], datatype="INT64", data=found.images.tolist()),
        ResponseOutput(name="boxes", shape=[count, 4], datatype="FP32", data=found.boxes.ravel().tolist()),
        ResponseOutput(name="scores", shape=[count], datatype="FP32", data=found.scores.tolist()),
        ResponseOutput(
            name="classes",
            shape=[count],
            datatype="BYTES",
            data=list(found.classes),
            parameters=Parameters(content_type="str"),
        ),
    ]
