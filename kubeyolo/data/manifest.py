"""The manifest of a data set, which validate_dataset writes and every later step reads."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from kubeyolo.data.findings import Finding

MANIFEST_NAME = "dataset.json"
SCHEMA_VERSION = 2
READABLE_VERSIONS = (1, 2)
"""Version 1 has no findings, layout, levels or text ids; its images are used without rotation."""


class StoredFile(BaseModel):
    """A file next to the manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    size: int = Field(ge=0)
    sha256: str


class SplitManifest(BaseModel):
    """A split: its counts, its index and its shards."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int
    boxes: int
    crowd: int
    index: StoredFile
    shards: tuple[StoredFile, ...]


class DatasetManifest(BaseModel):
    """A validated data set; ``digest`` is a sha256 of its images and annotations that does not depend on their URI."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA_VERSION
    name: str
    source: str
    digest: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    splits: dict[str, SplitManifest]
    layout: str = Field("", description="The layout of the data set, in words.")
    category_keys: tuple[str, ...] | None = Field(None, description="Ids of the categories if they are texts.")
    levels: tuple[float, float] | None = Field(
        None, description="Values that become 0 and 255, for samples of more than 8 bits; null for the whole range."
    )
    findings: tuple[Finding, ...] = ()
