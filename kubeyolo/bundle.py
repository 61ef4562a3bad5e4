"""The model bundle: the one thing that steps hand to each other."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MANIFEST_NAME = "bundle.json"
SCHEMA_VERSION = 1

WEIGHTS = "weights.safetensors"
ONNX = "model.onnx"
MINDIR = "model.mindir"
AIR = "model.air"
ONNX_INT8 = "model-int8.onnx"


class BundleFile(BaseModel):
    """Size and checksum of one file of a bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(ge=0)
    sha256: str


class Preprocessing(BaseModel):
    """What is done to an image before the network: letterbox, RGB, divided by 255, NCHW."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resize: Literal["letterbox"] = "letterbox"
    fill: int = 114
    channels: Literal["RGB"] = "RGB"
    divisor: float = 255.0


class DatasetReference(BaseModel):
    """The data set a model was trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    digest: str
    uri: str


class BundleManifest(BaseModel):
    """``bundle.json``: everything needed to load, preprocess for, and decode a model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA_VERSION
    kind: Literal["detector", "backbone"] = "detector"
    model: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...] = ()
    image_size: tuple[int, int] = Field(description="Height and width of the network's input, in pixels.")
    strides: tuple[int, ...]
    anchors: tuple[tuple[tuple[float, float], ...], ...] = Field(description="(level, anchor, 2): width, height in px.")
    preprocessing: Preprocessing = Preprocessing()
    config: dict[str, Any] = {}
    dataset: DatasetReference | None = None
    parent: str | None = Field(None, description="URI of the bundle this one was derived from.")
    code_digest: str = ""
    packages: dict[str, str] = {}
    metrics: dict[str, Any] = {}
    files: dict[str, BundleFile] = {}
