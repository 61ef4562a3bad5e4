"""The model bundle: the one thing that steps hand to each other."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kubeyolo.errors import InputError, WorkError, suggest
from kubeyolo.progress import Progress
from kubeyolo.storage.base import NotFound, Store, check_key
from kubeyolo.storage.cache import cache_folder
from kubeyolo.storage.integrity import check_sha256, sha256_bytes, sha256_file
from kubeyolo.storage.uri import open_store

MANIFEST_NAME = "bundle.json"
LATEST = "latest.json"
"""Beside the versions of a model: says which of them is in use."""

SCHEMA_VERSION = 1

WEIGHTS = "weights.safetensors"
ONNX = "model.onnx"
MINDIR = "model.mindir"
AIR = "model.air"
ONNX_INT8 = "model-int8.onnx"
MODEL_CARD = "MODEL_CARD.md"

_VERSION_DIGITS = 12
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_PACKAGES = ("kubeyolo", "mindspore", "numpy", "onnx", "onnxruntime", "opencv-python-headless", "pycocotools")


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
    bn_eps: float | None = Field(
        None, gt=0, lt=1, description="What batch normalisation adds to the variance; None is the model's own value."
    )
    preprocessing: Preprocessing = Preprocessing()
    config: dict[str, Any] = {}
    dataset: DatasetReference | None = None
    parent: str | None = Field(None, description="URI of the bundle this one was derived from.")
    code_digest: str = ""
    packages: dict[str, str] = {}
    metrics: dict[str, Any] = {}
    files: dict[str, BundleFile] = {}

    @property
    def model_files(self) -> dict[str, BundleFile]:
        """The files without the model card, which says when and from what the bundle was published."""
        return {name: file for name, file in self.files.items() if name != MODEL_CARD}

    @property
    def networks(self) -> dict[str, BundleFile]:
        """The files whose bytes say what the bundle computes: those of MINDIR differ at every export of a network."""
        return {name: file for name, file in self.model_files.items() if name != MINDIR}

    @property
    def content_version(self) -> str:
        """A version made of the networks: the same networks have the same version."""
        files = sorted((name, file.sha256) for name, file in self.networks.items())
        return sha256_bytes(repr(files).encode())[:_VERSION_DIGITS]


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are on this machine and have been checked."""

    manifest: BundleManifest
    uri: str
    folder: Path

    def path(self, name: str) -> Path:
        """Return the path of a file of the bundle.

        Raises:
            InputError: The bundle has no such file.
        """
        if name not in self.manifest.files:
            raise InputError(f"{self.uri}: this bundle has no file {name!r}{suggest(name, self.manifest.files)}")
        return self.folder / name

    def derive(self, store_uri: str, add_files: Mapping[str, Path], **manifest_updates: Any) -> str:
        """Publish a new bundle with all files of this one and more, and return its URI.

        Args:
            store_uri: The folder of the new bundle; not that of this one.
            add_files: Files by their name in the bundle; they replace files of the same name.
            **manifest_updates: New values of fields of the manifest; the others are as they are here.

        Raises:
            InputError: The place is that of this bundle, or a value does not fit the manifest.
        """
        if open_store(store_uri).uri == self.uri:
            raise InputError(f"{self.uri}: a bundle cannot be derived into its own place; give another folder")
        # Of the packages that are not installed here the parent's versions stay true.
        values = {**self.manifest.model_dump(), **manifest_updates, "parent": self.uri, "files": {}}
        try:
            manifest = BundleManifest.model_validate(values)
        except ValidationError as error:
            raise InputError(f"{store_uri}: {_first_problem(error)}") from error
        return publish_bundle(
            store_uri, manifest, {name: self.path(name) for name in self.manifest.files} | {**add_files}
        )


def publish_bundle(store_uri: str, manifest: BundleManifest, files: Mapping[str, Path]) -> str:
    """Store files as a bundle and return the URI of its folder.

    The manifest is written after all files, and an older one in the same place is removed before any of them is
    replaced: a reader finds a whole bundle or none. Publishing the same again changes nothing.

    Args:
        store_uri: The folder of the bundle.
        manifest: What to say about it; sizes, checksums and versions of the packages installed here are filled in.
        files: Files by their name in the bundle.

    Raises:
        InputError: A file is missing, a name is not possible, or the store cannot be used.
    """
    for name, path in files.items():
        if check_key(name) == MANIFEST_NAME:
            raise InputError(f"{store_uri}: {MANIFEST_NAME} is the manifest of the bundle, not one of its files")
        if not path.is_file():
            raise InputError(f"{path}: there is no such file to be put into the bundle {store_uri}")
    store = open_store(store_uri)
    facts = {
        name: BundleFile(size=path.stat().st_size, sha256=sha256_file(path)) for name, path in sorted(files.items())
    }
    packages = dict(sorted({**manifest.packages, **package_versions()}.items()))
    complete = manifest.model_copy(update={"files": facts, "packages": packages})
    document = complete.model_dump_json(indent=2).encode() + b"\n"
    wanted = dict(facts)
    if _holds(store, document):
        # What is there is what is to be there. It stays visible, and what was damaged since is replaced.
        folder = store.local_path()
        if folder is not None:
            wanted = {name: fact for name, fact in facts.items() if not _is_right(folder / name, fact)}
    else:
        store.delete(MANIFEST_NAME)
    with Progress(f"publishing {store.uri}", sum(fact.size for fact in wanted.values()), "bytes") as progress:
        for name, fact in wanted.items():
            if store.put_file(files[name], name, progress.advance) != fact.sha256:
                raise WorkError(f"{files[name]}: the file changed while it was being published; run it again")
    store.write_bytes(MANIFEST_NAME, document)
    return store.uri


def open_bundle(uri: str, cache: Path | None = None) -> Bundle:
    """Open a bundle, copy it to this machine where it is not here, and check every file.

    Args:
        uri: The folder of the bundle.
        cache: Folder for copies of bundles of object stores; ``~/.cache/kubeyolo/bundles`` by default. A copy whose
            checksums are right is used again.

    Raises:
        InputError: There is no bundle, its manifest cannot be read, or a file is missing or has another checksum.
    """
    store = open_store(uri)
    try:
        document = store.read_bytes(MANIFEST_NAME)
    except NotFound as error:
        raise InputError(
            f"{store.uri}: there is no {MANIFEST_NAME}, so this is no bundle, or one whose publishing did not end"
        ) from error
    manifest = read_manifest(document, store.uri_of(MANIFEST_NAME))
    folder = store.local_path()
    if folder is not None:
        for name, fact in manifest.files.items():
            _check_file(folder / name, fact, store.uri_of(name))
        return Bundle(manifest, store.uri, folder)
    folder = (cache or cache_folder("bundles")) / sha256_bytes(document)
    missing = [name for name, fact in manifest.files.items() if not _is_right(folder / name, fact)]
    with Progress(f"fetching {store.uri}", sum(manifest.files[name].size for name in missing), "bytes") as progress:
        for name in missing:
            store.get_file(name, folder / name, progress.advance)
            _check_file(folder / name, manifest.files[name], store.uri_of(name))
    return Bundle(manifest, store.uri, folder)


def check_version(version: str) -> None:
    """Refuse what cannot be the name of a version.

    Raises:
        InputError: It cannot.
    """
    if not _VERSION.fullmatch(version):
        raise InputError(f"version {version!r}: expected letters, digits, '.', '_' and '-', such as 1.0.0")
    if version == LATEST:
        raise InputError(f"version {version!r}: this is the name of the pointer to the model in use; choose another")


def read_manifest(document: bytes, uri: str) -> BundleManifest:
    """Read the text of a ``bundle.json``; ``uri`` is its place, for errors.

    Raises:
        InputError: It is not JSON, of a version that is not known here, or does not follow the schema.
    """
    try:
        values = json.loads(document)
    except ValueError as error:
        raise InputError(f"{uri}: this is not JSON ({error}); publish the bundle again") from error
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{uri}: schema version {version!r} of bundles is not known here (known: {SCHEMA_VERSION}); "
            "use the version of kubeyolo that wrote it, or publish it again"
        )
    try:
        manifest = BundleManifest.model_validate_json(document)
        for name in manifest.files:
            check_key(name)
    except ValidationError as error:
        raise InputError(f"{uri}: {_first_problem(error)}; publish the bundle again") from error
    except InputError as error:
        raise InputError(f"{uri}: {error}") from error
    return manifest


def package_versions() -> dict[str, str]:
    """Return the versions of the packages installed here that shape a model; none of them is imported."""
    found = {}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _holds(store: Store, document: bytes) -> bool:
    try:
        return store.read_bytes(MANIFEST_NAME) == document
    except InputError:
        return False


def _is_right(path: Path, fact: BundleFile) -> bool:
    return path.is_file() and path.stat().st_size == fact.size and sha256_file(path) == fact.sha256


def _check_file(path: Path, fact: BundleFile, uri: str) -> None:
    if not path.is_file():
        raise InputError(f"{uri}: this file of the bundle is missing; publish the bundle again")
    size = path.stat().st_size
    if size != fact.size:
        raise InputError(f"{uri}: this file has {size} bytes, its bundle says {fact.size}; publish the bundle again")
    check_sha256(uri, fact.sha256, sha256_file(path))


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}" if where else problem["msg"]
