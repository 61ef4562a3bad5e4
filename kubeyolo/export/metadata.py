"""The metadata of an ONNX file: all that a program needs to prepare its input and to use its output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import kubeyolo
from kubeyolo.bundle import BundleManifest, Preprocessing
from kubeyolo.documents import NotJson, read_json
from kubeyolo.errors import InputError, first_problem

LEAST_ONNXRUNTIME: Mapping[int, str] = MappingProxyType(
    {11: "1.0", 12: "1.3", 13: "1.6", 14: "1.8", 15: "1.9", 16: "1.11", 17: "1.12"}
)
"""The first release of onnxruntime that reads an opset; from its table of compatible versions."""

LEAST_ONNXRUNTIME_INT8 = "1.15"
"""The first release of onnxruntime that loads the int8 files."""

_TEXTS = ("model", "dataset", "kubeyolo", "least_onnxruntime", "layout", "quantization")
"""Fields that are written as they are; all others are written as JSON."""


class Suppression(BaseModel):
    """The settings of non-maximum suppression inside a file.

    Attributes:
        conf_threshold: Objectness and score of a box exceed it.
        iou_threshold: Boxes of a class whose IoU exceeds it are suppressed.
        max_det: Rows of the output for each image.
        multi_label: Whether a box may have several classes.
    """

    model_config = ConfigDict(frozen=True)

    conf_threshold: float
    iou_threshold: float
    max_det: int
    multi_label: bool


class OnnxMetadata(BaseModel):
    """The metadata of an ONNX file.

    Attributes:
        model: Name of the model.
        classes: Names of the classes.
        category_ids: Ids of the classes in the data set.
        image_size: Height and width of the input in pixels.
        strides: Pixels of a cell, for each level.
        anchors: (level, anchor, 2): width and height in pixels.
        layout: Order of the axes, type and range of the input.
        preprocessing: How an image becomes the input: order of colours, divisor, letterbox.
        dataset: Digest of the data set that the network was trained on.
        kubeyolo: Version of kubeyolo that wrote the file; empty in files of earlier versions.
        least_onnxruntime: The oldest onnxruntime that reads the file; empty in files of earlier versions.
        nms: Settings of the suppression inside the file; None if the file does not suppress boxes.
        quantization: How the network was quantized; empty for float.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...] = ()
    image_size: tuple[int, int]
    strides: tuple[int, ...]
    anchors: tuple[tuple[tuple[float, float], ...], ...]
    layout: str = "NCHW, float32, 0 to 1"
    preprocessing: Preprocessing
    dataset: str = ""
    kubeyolo: str = ""
    least_onnxruntime: str = ""
    nms: Suppression | None = Field(None)
    quantization: str = ""

    @property
    def properties(self) -> dict[str, str]:
        """The metadata as ONNX stores them: texts by name; empty fields are left out, except ``dataset``."""
        values = self.model_dump(mode="json")
        written = {
            name: value if name in _TEXTS else json.dumps(value, ensure_ascii=False)
            for name, value in values.items()
            if value not in (None, "")
        }
        return {**written, "dataset": self.dataset}


def onnx_metadata(manifest: BundleManifest, opset: int, nms: Suppression | None = None) -> OnnxMetadata:
    """Return the metadata of a file of a bundle.

    Args:
        manifest: Manifest of the bundle.
        opset: Opset of the file.
        nms: Settings of the suppression inside the file.
    """
    return OnnxMetadata(
        model=manifest.model,
        classes=manifest.classes,
        category_ids=manifest.category_ids,
        image_size=manifest.image_size,
        strides=manifest.strides,
        anchors=manifest.anchors,
        preprocessing=manifest.preprocessing,
        dataset=manifest.dataset.digest if manifest.dataset else "",
        kubeyolo=kubeyolo.__version__,
        least_onnxruntime=LEAST_ONNXRUNTIME[opset],
        nms=nms,
    )


def read_metadata(properties: Mapping[str, str], where: str) -> OnnxMetadata:
    """Read the metadata of a file, float or int8, of this or an earlier version.

    Args:
        properties: Texts by name: ``session.get_modelmeta().custom_metadata_map`` in onnxruntime, ``metadata_props`` in
            onnx.
        where: Path of the file, for messages.

    Raises:
        InputError: The file was not exported by kubeyolo.
    """
    try:
        values: dict[str, Any] = {
            name: text if name in _TEXTS else read_json(text, name)
            for name, text in properties.items()
            if name in OnnxMetadata.model_fields
        }
        return OnnxMetadata.model_validate(values)
    except (ValidationError, NotJson) as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise InputError(
            f"{where}: its metadata are not those of a file that kubeyolo exported ({problem}); export the model again"
        ) from error
