"""The data set manifest: what validate_dataset writes and every later step reads."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

MANIFEST_NAME = "dataset.json"
SCHEMA_VERSION = 1


class StoredFile(BaseModel):
    """A file beside the manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    size: int = Field(ge=0)
    sha256: str


class SplitManifest(BaseModel):
    """One split: its counts, its index and its shards."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int
    boxes: int
    crowd: int
    index: StoredFile
    shards: tuple[StoredFile, ...]


class DatasetManifest(BaseModel):
    """A validated data set; ``digest`` is a sha256 over its images and annotations, wherever they are stored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA_VERSION
    name: str
    source: str
    digest: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    splits: dict[str, SplitManifest]
