"""The model bundle, which steps pass to each other. :mod:`kubeyolo.publishing` publishes it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kubeyolo.config.section import MOST_PIXELS
from kubeyolo.documents import NotJson, read_json
from kubeyolo.errors import InputError, first_problem, one_line, suggest
from kubeyolo.progress import Progress
from kubeyolo.provenance import ProvenanceEntry
from kubeyolo.signing import SIGNATURE_NAME, TrustedKeys
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
ONNX_NMS = "model-nms.onnx"
MINDIR = "model.mindir"
AIR = "model.air"
ONNX_INT8 = "model-int8.onnx"
LEFT_OUT = "left_out"
"""Key of a bundle's metrics: why a network was left out of the bundle, by runtime."""
RANGES = "ranges.json"
"""Ranges of the values of a network that was trained with quantization; see :mod:`kubeyolo.models.ranges`."""
MODEL_CARD = "MODEL_CARD.md"
ASCEND = "ASCEND.md"
AIPP = "aipp.cfg"

_VERSION_DIGITS = 12
_FOLDER_DIGITS = 16
_FOLDER = rf"([0-9a-f]{{{_FOLDER_DIGITS}}}(-[0-9a-f]+)?)?"
_MOST_READINGS = 5
_MOST_STRIDE = 1 << 10
_MOST_ANCHOR = 1 << 20
_LEAST_DIVISOR = 1e-6
_MOST_CHARACTERS = 100
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
    provenance: tuple[ProvenanceEntry, ...] = Field((), description="The steps that made the bundle, in order.")
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
        """Tell whether two manifests are equal except for the folder of their files and their provenance."""
        without = {"folder": "", "provenance": ()}
        return self.model_copy(update=without).document == other.model_copy(update=without).document


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
        InputError: There is no bundle, its manifest cannot be read, or it has a different digest; or the environment
            names trusted keys (:mod:`kubeyolo.signing`), and none of them has signed it.
    """
    return _read_steadily(place, cache, lambda bundle: bundle)


def read_document(place: Place) -> bytes:
    """Return the ``bundle.json`` of a bundle; its signature is not checked.

    Raises:
        InputError: There is no bundle, or its manifest does not have the digest of the place.
    """
    try:
        document = place.store.read_bytes(MANIFEST_NAME)
    except NotFound as error:
        raise InputError(f"{place}: there is no {MANIFEST_NAME}: this is not a bundle, or an incomplete one") from error
    place.check_digest(sha256_bytes(document))
    return document


def read_signature(store: Store, manifest: BundleManifest) -> bytes | None:
    """Return the signature of a bundle; None if it is not signed.

    The signature is in the folder that ``bundle.json`` names, so that both are published by one compare-and-swap.
    """
    try:
        return store.read_bytes(manifest.key(SIGNATURE_NAME))
    except NotFound:
        return None


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
    return _read_steadily(place, cache, Bundle.fetched)


def _read_steadily(place: Place, cache: Path | None, finish: Callable[[Bundle], Bundle]) -> Bundle:
    """Read a bundle, check its signature if there are trusted keys, and finish it.

    If the signature or a file does not belong to the manifest, the bundle may have been replaced after its manifest was
    read: the bundle is read again until the manifest stays the same.
    """
    trusted, failed = TrustedKeys.from_environment(), ""
    for attempt in range(_MOST_READINGS):
        document = read_document(place)
        digest = sha256_bytes(document)
        manifest = read_manifest(document, place.store.uri_of(MANIFEST_NAME))
        try:
            if trusted:
                trusted.check(place.uri, document, read_signature(place.store, manifest))
            return finish(Bundle(manifest, place.pinned(digest), cache))
        except InputError:
            if digest == failed or attempt == _MOST_READINGS - 1:
                raise
            failed = digest
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


def is_content_folder(name: str) -> bool:
    """Tell whether a name has the form of the folder with the files of a bundle."""
    return bool(name) and re.fullmatch(_FOLDER, name) is not None


def read_manifest(document: bytes, uri: str) -> BundleManifest:
    """Read the text of a ``bundle.json``; errors name its ``uri``.

    Raises:
        UnreadableManifest: The text is not JSON, has an unknown version, or does not follow the schema.
    """
    try:
        values = read_json(document, uri, "publish the bundle again")
    except NotJson as error:
        raise UnreadableManifest(str(error)) from error
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise UnreadableManifest(
            f"{uri}: schema version {version!r} of bundles is not known here (known: {SCHEMA_VERSION}); "
            "use the version of kubeyolo that wrote this bundle, or publish the bundle again"
        )
    try:
        manifest = BundleManifest.model_validate(values)
        for name in manifest.files:
            check_key(name)
        _check_values(manifest)
    except ValidationError as error:
        raise UnreadableManifest(f"{uri}: {first_problem(error)}; publish the bundle again") from error
    except InputError as error:
        raise UnreadableManifest(f"{uri}: {error}") from error
    return manifest


def _check_values(manifest: BundleManifest) -> None:
    """Refuse values with which images cannot be prepared, or outputs cannot be decoded.

    Raises:
        InputError: The message has the key and its value.
    """
    preprocessing = manifest.preprocessing
    if not 0 <= preprocessing.fill <= 255:
        raise _bad_value("preprocessing.fill", preprocessing.fill, "0 to 255")
    if not _LEAST_DIVISOR <= preprocessing.divisor <= 1 / _LEAST_DIVISOR:
        raise _bad_value("preprocessing.divisor", preprocessing.divisor, "a positive number, such as 255")
    levels = preprocessing.levels
    if levels is not None and not (all(map(math.isfinite, levels)) and levels[0] < levels[1]):
        raise _bad_value("preprocessing.levels", levels, "two finite numbers, the smaller one first")
    if any(not -(1 << 63) <= number < 1 << 63 for number in manifest.category_ids):
        raise _bad_value("category_ids", "a number of more than 64 bits", "ids of 64 bits")
    if manifest.kind != "detector":
        return
    if not manifest.classes:
        raise _bad_value("classes", "[]", "the names of the classes")
    if manifest.category_ids and len(manifest.category_ids) != len(manifest.classes):
        needed = f"a list of {len(manifest.classes)}, an id for each class"
        raise _bad_value("category_ids", f"a list of {len(manifest.category_ids)}", needed)
    if not all(1 <= side <= MOST_PIXELS for side in manifest.image_size):
        raise _bad_value("image_size", manifest.image_size, f"a height and a width of 1 to {MOST_PIXELS} pixels")
    strides = manifest.strides
    is_ascending = all(fine < coarse for fine, coarse in zip(strides, strides[1:], strict=False))
    if not strides or not is_ascending or not 1 <= strides[0] <= strides[-1] <= _MOST_STRIDE:
        raise _bad_value("strides", strides, f"ascending numbers of 1 to {_MOST_STRIDE}")
    for level in manifest.anchors:
        for anchor in level:
            if not all(0 < side <= _MOST_ANCHOR for side in anchor):
                raise _bad_value("anchors", f"{anchor[0]:g} x {anchor[1]:g}", f"sides up to {_MOST_ANCHOR} pixels")


def _bad_value(key: str, value: object, expected: str) -> InputError:
    shown = one_line(value if isinstance(value, str) else repr(value), _MOST_CHARACTERS)
    return InputError(f"{key} is {shown}, must be {expected}; publish the bundle again")


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
