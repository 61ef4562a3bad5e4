"""The model bundle, which steps pass to each other. :mod:`kubeyolo.publishing` publishes it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kubeyolo.errors import InputError, first_problem, suggest
from kubeyolo.progress import Progress
from kubeyolo.storage.base import NotFound, Store, check_key, join_key
from kubeyolo.storage.cache import cache_folder
from kubeyolo.storage.integrity import check_sha256, sha256_bytes, sha256_file
from kubeyolo.storage.place import Place, Stored

MANIFEST_NAME = "bundle.json"
LATEST = "latest.json"
"""Name of the pointer to the current model, next to the versions of the model."""

SCHEMA_VERSION = 1

WEIGHTS = "weights.safetensors"
ONNX = "model.onnx"
MINDIR = "model.mindir"
AIR = "model.air"
ONNX_INT8 = "model-int8.onnx"
RANGES = "ranges.json"
"""Ranges of the values of a network that was trained with quantization; see :mod:`kubeyolo.models.ranges`."""
MODEL_CARD = "MODEL_CARD.md"
ASCEND = "ASCEND.md"
AIPP = "aipp.cfg"

_VERSION_DIGITS = 12
_FOLDER_DIGITS = 16
_FOLDER = rf"([0-9a-f]{{{_FOLDER_DIGITS}}}(-[0-9a-f]+)?)?"
_MOST_READINGS = 5
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class UnreadableManifest(InputError):
    """A ``bundle.json`` that is not JSON, has a different version, or does not follow the schema."""


class BundleFile(BaseModel):
    """Size and checksum of one file of a bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(ge=0)
    sha256: str


class Preprocessing(BaseModel):
    """How an image becomes the input of the network: letterbox, RGB, divided by 255, NCHW.

    ``padding`` and ``ratio`` describe :mod:`kubeyolo.data.letterbox` for people who use the files without kubeyolo.
    Bundles of earlier versions lack both fields, but their images were padded and resized in the same way.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    resize: Literal["letterbox"] = "letterbox"
    levels: tuple[float, float] | None = Field(
        None, description="Sample values mapped to 0 and 255 in images with more than 8 bits; null: the whole range."
    )
    padding: Literal["left = floor(total / 2), top = floor(total / 2)"] = (
        "left = floor(total / 2), top = floor(total / 2)"
    )
    ratio: Literal["x: resized / original width, y: resized / original height"] = (
        "x: resized / original width, y: resized / original height"
    )
    fill: int = 114
    channels: Literal["RGB"] = "RGB"
    divisor: float = 255.0


class DatasetReference(BaseModel):
    """The data set a model was trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    digest: str
    uri: str
    findings: tuple[str, ...] = Field((), description="Findings of its validation, one line each.")


class BundleManifest(BaseModel):
    """``bundle.json``: everything needed to load a model, prepare its input, and decode its output."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA_VERSION
    kind: Literal["detector", "backbone"] = "detector"
    model: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...] = ()
    image_size: tuple[int, int] = Field(description="Height and width of the network's input, in pixels.")
    strides: tuple[int, ...]
    anchors: tuple[tuple[tuple[float, float], ...], ...] = Field(description="(level, anchor, 2): width, height in px.")
    bn_eps: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Number that batch normalization adds to the variance; if null, the value of the model is used.",
    )
    preprocessing: Preprocessing = Preprocessing()
    config: dict[str, Any] = {}
    dataset: DatasetReference | None = None
    parent: str | None = Field(None, description="URI of the bundle that this bundle was derived from.")
    code_digest: str = ""
    packages: dict[str, str] = {}
    metrics: dict[str, Any] = {}
    folder: str = Field(
        "", pattern=f"^{_FOLDER}$", description="Folder of the files; if empty, they are next to bundle.json."
    )
    files: dict[str, BundleFile] = {}

    @property
    def model_files(self) -> dict[str, BundleFile]:
        """All files except the model card, whose text depends on the time of publishing."""
        return {name: file for name, file in self.files.items() if name != MODEL_CARD}

    @property
    def networks(self) -> dict[str, BundleFile]:
        """The files that identify the networks: all except MINDIR, whose bytes differ at every export."""
        return {name: file for name, file in self.model_files.items() if name != MINDIR}

    @property
    def content_version(self) -> str:
        """A version derived from the networks: the same networks have the same version."""
        return _digest_of(self.networks)[:_VERSION_DIGITS]

    @property
    def content_folder(self) -> str:
        """The name of the folder for a new bundle with these files: different files get different folders."""
        return _digest_of(self.files)[:_FOLDER_DIGITS]

    @property
    def weights_metadata(self) -> dict[str, str]:
        """Metadata of a safetensors file with weights of this model; an import reads them back."""
        return {
            "model": self.model,
            "classes": json.dumps(self.classes),
            "anchors": json.dumps(self.anchors),
            **({} if self.bn_eps is None else {"bn_eps": repr(self.bn_eps)}),
        }

    @property
    def document(self) -> bytes:
        """The text of ``bundle.json``."""
        return self.model_dump_json(indent=2).encode() + b"\n"

    def key(self, name: str) -> str:
        """Return the key of a file of the bundle, relative to the bundle's URI."""
        return join_key(self.folder, name)

    def is_same_bundle(self, other: BundleManifest) -> bool:
        """Tell whether two manifests are equal except for the folder of their files."""
        return self.model_copy(update={"folder": ""}).document == other.model_copy(update={"folder": ""}).document


@dataclass(frozen=True)
class Bundle(Stored):
    """A published bundle, whose manifest is read once.

    All other files are fetched and compared with their checksums once, when the first of them is needed.

    Attributes:
        manifest: Its ``bundle.json``.
        place: Its folder, with the sha256 of ``bundle.json``, which has the checksums of all other files.
        cache: Folder for copies of the files of object stores.
    """

    manifest: BundleManifest
    place: Place
    cache: Path | None = None

    @cached_property
    def folder(self) -> Path:
        """The folder on this machine with all files of the bundle, checked.

        Raises:
            InputError: A file is missing or has a different checksum.
        """
        return _checked_files(self.place.store, self.manifest, self.digest, self.cache)

    def fetched(self) -> Bundle:
        """Return this bundle after fetching and checking its files.

        Raises:
            InputError: A file is missing or has a different checksum.
        """
        self.folder  # noqa: B018 - the first access fetches and checks the files
        return self

    def path(self, name: str) -> Path:
        """Return the path of a file of the bundle.

        Raises:
            InputError: The bundle has no such file, or a file is missing or has a different checksum.
        """
        if name not in self.manifest.files:
            raise InputError(f"{self.uri}: this bundle has no file {name!r}{suggest(name, self.manifest.files)}")
        return self.folder / name

    def file_place(self, name: str) -> Place:
        """Return the place of a file of the bundle, to read it without fetching the other files."""
        return self.place / self.manifest.key(name)


def read_bundle(place: Place, cache: Path | None = None) -> Bundle:
    """Read the manifest of a bundle; the other files are fetched when they are needed.

    Args:
        place: The folder of the bundle. If it has a digest, the manifest must have this digest.
        cache: Folder for copies of the files of object stores; ``~/.cache/kubeyolo/bundles`` by default. A copy with
            the right checksum is used again.

    Raises:
        InputError: There is no bundle, its manifest cannot be read, or it has a different digest.
    """
    try:
        document = place.store.read_bytes(MANIFEST_NAME)
    except NotFound as error:
        raise InputError(f"{place}: there is no {MANIFEST_NAME}: this is not a bundle, or an incomplete one") from error
    digest = sha256_bytes(document)
    place.check_digest(digest)
    return Bundle(read_manifest(document, place.store.uri_of(MANIFEST_NAME)), place.pinned(digest), cache)


def open_bundle(place: Place, cache: Path | None = None) -> Bundle:
    """Read a bundle, and fetch and check all of its files.

    If the bundle is replaced meanwhile, it is read again.

    Args:
        place: See :func:`read_bundle`.
        cache: See :func:`read_bundle`.

    Raises:
        InputError: There is no bundle, its manifest cannot be read or has a different digest, or a file is missing or
            has a different checksum.
    """
    failed = ""
    for attempt in range(_MOST_READINGS):
        bundle = read_bundle(place, cache)
        try:
            return bundle.fetched()
        except InputError:
            if bundle.digest == failed or attempt == _MOST_READINGS - 1:
                raise
            failed = bundle.digest
    raise AssertionError


def check_version(version: str) -> None:
    """Refuse a text that cannot be a version.

    Raises:
        InputError: The text has characters that are not allowed, is too long, or is the name of the pointer.
    """
    if not _VERSION.fullmatch(version):
        raise InputError(f"version {version!r}: expected letters, digits, '.', '_' and '-', such as 1.0.0")
    if version == LATEST:
        raise InputError(
            f"version {version!r}: this is the name of the pointer to the current model; choose a different version"
        )


def read_manifest(document: bytes, uri: str) -> BundleManifest:
    """Read the text of a ``bundle.json``; errors name its ``uri``.

    Raises:
        UnreadableManifest: The text is not JSON, has an unknown version, or does not follow the schema.
    """
    try:
        values = json.loads(document)
    except ValueError as error:
        raise UnreadableManifest(f"{uri}: this file is not JSON ({error}); publish the bundle again") from error
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise UnreadableManifest(
            f"{uri}: schema version {version!r} of bundles is not known here (known: {SCHEMA_VERSION}); "
            "use the version of kubeyolo that wrote this bundle, or publish the bundle again"
        )
    try:
        manifest = BundleManifest.model_validate_json(document)
        for name in manifest.files:
            check_key(name)
    except ValidationError as error:
        raise UnreadableManifest(f"{uri}: {first_problem(error)}; publish the bundle again") from error
    except InputError as error:
        raise UnreadableManifest(f"{uri}: {error}") from error
    return manifest


def _digest_of(files: Mapping[str, BundleFile]) -> str:
    return sha256_bytes(repr(sorted((name, file.sha256) for name, file in files.items())).encode())


def _checked_files(store: Store, manifest: BundleManifest, digest: str, cache: Path | None) -> Path:
    """Return the folder on this machine with the files of a bundle, after checking them and copying missing files."""
    here = store.local_path()
    if here is not None:
        for name, fact in manifest.files.items():
            _check_file(here / manifest.key(name), fact, store.uri_of(manifest.key(name)))
        return here / manifest.folder
    folder = (cache or cache_folder("bundles")) / digest
    missing = [name for name, fact in manifest.files.items() if not is_right(folder / name, fact)]
    with Progress(f"fetching {store.uri}", sum(manifest.files[name].size for name in missing), "bytes") as progress:
        for name in missing:
            key = manifest.key(name)
            sha256 = store.get_file(key, folder / name, progress.advance)
            _check_file(folder / name, manifest.files[name], store.uri_of(key), sha256)
    return folder


def is_right(path: Path, fact: BundleFile) -> bool:
    """Tell whether a file on this machine has the size and the checksum of a file in a bundle."""
    with suppress(FileNotFoundError):
        return path.is_file() and path.stat().st_size == fact.size and sha256_file(path) == fact.sha256
    return False


def _check_file(path: Path, fact: BundleFile, uri: str, sha256: str = "") -> None:
    try:
        size = path.stat().st_size
        sha256 = sha256 or (sha256_file(path) if size == fact.size else "")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise InputError(f"{uri}: this file of the bundle is missing; publish the bundle again") from error
    if size != fact.size:
        raise InputError(f"{uri}: this file has {size} bytes, expected {fact.size} bytes; publish the bundle again")
    check_sha256(uri, fact.sha256, sha256)
