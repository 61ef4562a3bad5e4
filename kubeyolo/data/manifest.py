"""The manifest of a data set, which validate_dataset writes and every later step reads."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from kubeyolo.data.findings import Finding
from kubeyolo.errors import InputError
from kubeyolo.names import check_name
from kubeyolo.storage.base import check_key

MANIFEST_NAME = "dataset.json"
SCHEMA_VERSION = 2
READABLE_VERSIONS = (1, 2)
"""Version 1 has no findings, layout, levels or text ids; its images are used without rotation."""


def _name(name: str) -> str:
    try:
        return check_name(name, "the name")
    except InputError as error:
        raise ValueError(str(error)) from error


def _file(name: str) -> str:
    try:
        return check_key(name)
    except InputError as error:
        raise ValueError(str(error)) from error


Name = Annotated[str, AfterValidator(_name)]
"""The name of a data set or a split, which is also the name of a folder in the cache."""


class StoredFile(BaseModel):
    """A file next to the manifest, or below it; its name does not lead out of the folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, AfterValidator(_file)]
    size: int = Field(ge=0)
    sha256: str


class SplitManifest(BaseModel):
    """A split: its counts, its index and its shards."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int = Field(ge=0)
    boxes: int = Field(ge=0)
    crowd: int = Field(ge=0)
    index: StoredFile
    shards: tuple[StoredFile, ...]


class DatasetManifest(BaseModel):
    """A validated data set; ``digest`` is a sha256 of its images and annotations that does not depend on their URI."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA_VERSION
    name: Name
    source: str
    digest: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    splits: dict[Name, SplitManifest]
    layout: str = Field("", description="The layout of the data set, in words.")
    category_keys: tuple[str, ...] | None = Field(None, description="Ids of the categories if they are texts.")
    levels: tuple[float, float] | None = Field(
        None, description="Values that become 0 and 255, for samples of more than 8 bits; null for the whole range."
    )
    findings: tuple[Finding, ...] = ()
