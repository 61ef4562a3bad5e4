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

from kubeyolo.errors import InputError, WorkError, first_problem, suggest
from kubeyolo.progress import Progress
from kubeyolo.storage.base import NotFound, Store, check_key, join_key
from kubeyolo.storage.cache import cache_folder
from kubeyolo.storage.integrity import DamagedContent, check_sha256, sha256_bytes, sha256_file
from kubeyolo.storage.owned_folder import owned_folder, remove_unused
from kubeyolo.storage.reference import check_pinned, pin, split_reference
from kubeyolo.storage.uri import open_store

MANIFEST_NAME = "bundle.json"
LATEST = "latest.json"
"""Next to the versions of a model: names the current one."""

SCHEMA_VERSION = 1

WEIGHTS = "weights.safetensors"
ONNX = "model.onnx"
MINDIR = "model.mindir"
AIR = "model.air"
ONNX_INT8 = "model-int8.onnx"
MODEL_CARD = "MODEL_CARD.md"

_VERSION_DIGITS = 12
_FOLDER_DIGITS = 16
_FOLDER = rf"([0-9a-f]{{{_FOLDER_DIGITS}}}(-[0-9a-f]+)?)?"
_MOST_PUBLISHERS = 100
_MOST_READINGS = 5
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_PACKAGES = (
    "kubeyolo",
    "mindspore",
    "numpy",
    "onnx",
    "onnxruntime",
    "opencv-python-headless",
    "pillow",
    "pycocotools",
    "simplejpeg",
)


class UnreadableManifest(InputError):
    """A ``bundle.json`` is not JSON, of another version, or does not follow the schema."""


class VersionTaken(InputError):
    """Another bundle is published under this URI."""


class BundleFile(BaseModel):
    """Size and checksum of one file of a bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(ge=0)
    sha256: str


class Preprocessing(BaseModel):
    """What is done to an image before the network: letterbox, RGB, divided by 255, NCHW.

    ``padding`` and ``ratio`` say what :mod:`kubeyolo.data.letterbox` does, for those who use the files without it.
    Bundles of earlier versions lack them, and mean the same.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    resize: Literal["letterbox"] = "letterbox"
    levels: tuple[float, float] | None = Field(
        None, description="Samples that become 0 and 255 in images with more than 8 bits; null for the whole range."
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
    findings: tuple[str, ...] = Field((), description="What its validation found, a line each.")


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
    folder: str = Field("", pattern=f"^{_FOLDER}$", description="Where the files are; empty: next to bundle.json.")
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

    @property
    def content_folder(self) -> str:
        """The name of the folder that a new bundle with these files gets: other files, another folder."""
        files = sorted((name, file.sha256) for name, file in self.files.items())
        return sha256_bytes(repr(files).encode())[:_FOLDER_DIGITS]

    @property
    def document(self) -> bytes:
        """The text of ``bundle.json``."""
        return self.model_dump_json(indent=2).encode() + b"\n"

    def key(self, name: str) -> str:
        """Return the key of a file of the bundle, relative to the bundle's URI."""
        return join_key(self.folder, name)

    def is_same_bundle(self, other: BundleManifest) -> bool:
        """Tell whether two manifests differ in nothing but the folder of their files."""
        return self.model_copy(update={"folder": ""}).document == other.model_copy(update={"folder": ""}).document


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are on this machine and have been checked.

    Attributes:
        manifest: Its ``bundle.json``.
        uri: Where it is published, without a digest.
        folder: The folder of this machine with its files.
        digest: The sha256 of its ``bundle.json``, and so of all its content.
    """

    manifest: BundleManifest
    uri: str
    folder: Path
    digest: str

    @property
    def reference(self) -> str:
        """The URI with the digest: ``open_bundle`` opens this content by it, or refuses."""
        return pin(self.uri, self.digest)

    def path(self, name: str) -> Path:
        """Return the path of a file of the bundle.

        Raises:
            InputError: The bundle has no such file.
        """
        if name not in self.manifest.files:
            raise InputError(f"{self.uri}: this bundle has no file {name!r}{suggest(name, self.manifest.files)}")
        return self.folder / name

    def derive(
        self, store_uri: str, add_files: Mapping[str, Path], *, replace: bool = True, **manifest_updates: Any
    ) -> str:
        """Publish a new bundle with all files of this one and more, and return its URI.

        Args:
            store_uri: The folder of the new bundle; not that of this one.
            add_files: Files by their name in the bundle; they replace files of the same name.
            replace: Whether to replace another bundle that is published there.
            **manifest_updates: New values of fields of the manifest; the others are as they are here.

        Raises:
            InputError: The place is that of this bundle, or a value does not fit the manifest.
            VersionTaken: Another bundle is published there, and ``replace`` is off.
        """
        if open_store(store_uri).uri == self.uri:
            raise InputError(f"{self.uri}: a bundle cannot be derived into its own place; give another folder")
        # Of the packages that are not installed here the parent's versions stay true.
        values = {**self.manifest.model_dump(), **manifest_updates, "parent": self.uri, "folder": "", "files": {}}
        try:
            manifest = BundleManifest.model_validate(values)
        except ValidationError as error:
            raise InputError(f"{store_uri}: {first_problem(error)}") from error
        files = {name: self.path(name) for name in self.manifest.files} | {**add_files}
        return publish_bundle(store_uri, manifest, files, replace=replace)


def publish_bundle(store_uri: str, manifest: BundleManifest, files: Mapping[str, Path], *, replace: bool = True) -> str:
    """Store files as a bundle and return the URI of its folder.

    The files are stored in a folder of their own, then the manifest is put in place by compare-and-swap: a reader finds
    a whole bundle or none, and of several publishers each replaces what it has seen, or does not publish. Publishing
    the same again changes nothing, but puts back files that are damaged.

    Args:
        store_uri: The folder of the bundle.
        manifest: What to say about it; sizes, checksums and versions of the packages installed here are filled in.
        files: Files by their name in the bundle.
        replace: Whether to replace another bundle that is published there; its files are removed then.

    Raises:
        InputError: A file is missing, a name is not possible, or the store cannot be used.
        VersionTaken: Another bundle is published there, or was put there in the meantime, and ``replace`` is off.
        WorkError: A file changed while it was copied, or others replaced the bundle again and again.
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
    complete = manifest.model_copy(update={"files": facts, "packages": packages, "folder": ""})
    current = _published(store, replace)
    same = _same(current, complete)
    if same is not None:
        if _put_back(store, same, files):
            return store.uri
        current = _published(store, replace)
    if current is not None and not replace:
        raise _taken(store)
    with owned_folder(store, complete.content_folder, lambda name: _is_used(store, name)) as folder:
        new = complete.model_copy(update={"folder": folder})
        _put_files(store, new, files, new.files)
        replaced = _swap(store, new, current, replace)
    if replaced is not None:
        _remove_files(store, replaced)
    return store.uri


def repair_bundle(uri: str, files: Mapping[str, Path]) -> Bundle:
    """Put back damaged files of a published bundle, open it and return it; its manifest stays as it is.

    Args:
        uri: The folder of the bundle.
        files: Files by their name in the bundle; those whose content is not the published one are not used.

    Raises:
        InputError: There is no bundle, or a file that is damaged is not among those that were given.
    """
    store = open_store(uri)
    manifest = read_manifest(_read_document(store), store.uri_of(MANIFEST_NAME))
    same = {
        name: path for name, path in files.items() if name in manifest.files and _is_right(path, manifest.files[name])
    }
    _put_back(store, manifest, same)
    return open_bundle(store.uri)


def open_bundle(uri: str, cache: Path | None = None) -> Bundle:
    """Open a bundle, copy it to this machine where it is not here, and check every file.

    Args:
        uri: The folder of the bundle, or a reference to it (the URI with a digest).
        cache: Folder for copies of bundles of object stores; ``~/.cache/kubeyolo/bundles`` by default. A copy whose
            checksums are right is used again.

    Raises:
        InputError: There is no bundle, its manifest cannot be read, a file is missing or has another checksum, or it
            is not the bundle of the reference.
    """
    plain, expected = split_reference(uri)
    store = open_store(plain)
    failed = ""
    for attempt in range(_MOST_READINGS):
        document = _read_document(store)
        digest = sha256_bytes(document)
        check_pinned(store.uri, expected, digest)
        manifest = read_manifest(document, store.uri_of(MANIFEST_NAME))
        try:
            return Bundle(manifest, store.uri, _checked_files(store, manifest, digest, cache), digest)
        except InputError:
            # A bundle may be replaced while it is read, and its files removed: then the new bundle is read.
            if digest == failed or attempt == _MOST_READINGS - 1:
                raise
            failed = digest
    raise AssertionError


def bundle_reference(uri: str) -> str:
    """Return the reference of a bundle: its URI with the digest of its ``bundle.json``, of which alone it is made.

    Args:
        uri: The folder of the bundle; where it is a reference, it is compared.

    Raises:
        InputError: There is no bundle, or it is not that of the reference.
    """
    plain, expected = split_reference(uri)
    store = open_store(plain)
    digest = sha256_bytes(_read_document(store))
    check_pinned(store.uri, expected, digest)
    return pin(store.uri, digest)


def open_manifest(uri: str) -> BundleManifest:
    """Return the manifest of a bundle by its URI or a reference; none of its other files is read.

    Raises:
        InputError: There is no bundle, or its manifest cannot be read or is not that of the reference.
    """
    place, digest = split_reference(uri)
    store = open_store(place)
    document = _read_document(store)
    check_pinned(store.uri, digest, sha256_bytes(document))
    return read_manifest(document, store.uri_of(MANIFEST_NAME))


def check_version(version: str) -> None:
    """Refuse what cannot be the name of a version.

    Raises:
        InputError: It cannot.
    """
    if not _VERSION.fullmatch(version):
        raise InputError(f"version {version!r}: expected letters, digits, '.', '_' and '-', such as 1.0.0")
    if version == LATEST:
        raise InputError(f"version {version!r}: this is the name of the pointer to the current model; choose another")


def read_manifest(document: bytes, uri: str) -> BundleManifest:
    """Read the text of a ``bundle.json``; ``uri`` is its place, for errors.

    Raises:
        UnreadableManifest: It is not JSON, of a version that is not known here, or does not follow the schema.
    """
    try:
        values = json.loads(document)
    except ValueError as error:
        raise UnreadableManifest(f"{uri}: this is not JSON ({error}); publish the bundle again") from error
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise UnreadableManifest(
            f"{uri}: schema version {version!r} of bundles is not known here (known: {SCHEMA_VERSION}); "
            "use the version of kubeyolo that wrote it, or publish it again"
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


def package_versions() -> dict[str, str]:
    """Return the versions of the packages installed here that shape a model; none of them is imported."""
    found = {}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@dataclass(frozen=True)
class _Published:
    """What is published now: the manifest, None where it cannot be read, and the etag of ``bundle.json``."""

    manifest: BundleManifest | None
    etag: str


def _published(store: Store, replace: bool) -> _Published | None:
    try:
        document, etag = store.read_version(MANIFEST_NAME)
    except NotFound:
        return None
    except DamagedContent:
        if not replace:
            raise
        store.delete(MANIFEST_NAME)
        return None
    try:
        return _Published(read_manifest(document, store.uri_of(MANIFEST_NAME)), etag)
    except InputError:
        return _Published(None, etag)


def _same(current: _Published | None, manifest: BundleManifest) -> BundleManifest | None:
    """Return the manifest that is published now where it is that of the same bundle."""
    there = current.manifest if current else None
    return there if there is not None and there.is_same_bundle(manifest) else None


def _swap(store: Store, new: BundleManifest, current: _Published | None, replace: bool) -> _Published | None:
    """Replace the current manifest, and return what was replaced.

    Nothing is replaced where a faster publisher has published the same bundle.
    """
    for _ in range(_MOST_PUBLISHERS):
        if current is None:
            done = store.create_bytes(MANIFEST_NAME, new.document)
        else:
            done = store.replace_bytes(MANIFEST_NAME, new.document, current.etag)
        if done:
            return current
        current = _published(store, replace)
        if _same(current, new) is not None:
            return None
        if current is not None and not replace:
            raise _taken(store)
    raise WorkError(f"{store.uri}: other processes publish here again and again; stop them, then run it again")


def _taken(store: Store) -> VersionTaken:
    return VersionTaken(f"{store.uri}: another bundle is published there; choose another place")


def _is_used(store: Store, folder: str) -> bool:
    """Tell whether the current manifest names this folder; one that cannot be read may do so."""
    try:
        return read_manifest(store.read_bytes(MANIFEST_NAME), store.uri_of(MANIFEST_NAME)).folder == folder
    except NotFound:
        return False
    except InputError:
        return True


def _remove_files(store: Store, replaced: _Published) -> None:
    manifest = replaced.manifest
    if manifest is None:
        return
    if manifest.folder:
        remove_unused(store, manifest.folder, lambda name: _is_used(store, name))
        return
    for name in manifest.files:
        store.delete(name)


def _put_back(store: Store, manifest: BundleManifest, files: Mapping[str, Path]) -> bool:
    """Replace the damaged files of a published bundle: in a folder, only these; in an object store, all.

    Returns:
        Whether the bundle is still published. Where it was replaced in the meantime, its files are removed.
    """
    here = store.local_path()
    damaged = {
        name: fact
        for name, fact in manifest.files.items()
        if name in files and (here is None or not _is_right(here / manifest.key(name), fact))
    }
    try:
        _put_files(store, manifest, files, damaged)
    except NotFound:
        # The folder was removed while a file was written into it.
        if _is_used(store, manifest.folder):
            raise
    if _is_used(store, manifest.folder):
        return True
    if manifest.folder:
        remove_unused(store, manifest.folder, lambda name: _is_used(store, name))
    return False


def _put_files(
    store: Store, manifest: BundleManifest, files: Mapping[str, Path], facts: Mapping[str, BundleFile]
) -> None:
    with Progress(f"publishing {store.uri}", sum(fact.size for fact in facts.values()), "bytes") as progress:
        for name, fact in facts.items():
            if store.put_file(files[name], manifest.key(name), progress.advance) != fact.sha256:
                raise WorkError(f"{files[name]}: the file changed while it was being published; run it again")


def _read_document(store: Store) -> bytes:
    try:
        return store.read_bytes(MANIFEST_NAME)
    except NotFound as error:
        raise InputError(
            f"{store.uri}: there is no {MANIFEST_NAME}: this is not a bundle, or an incomplete one"
        ) from error


def _checked_files(store: Store, manifest: BundleManifest, digest: str, cache: Path | None) -> Path:
    """Return the folder of this machine with the files of a bundle, after a look at each, and copies where needed."""
    here = store.local_path()
    if here is not None:
        for name, fact in manifest.files.items():
            _check_file(here / manifest.key(name), fact, store.uri_of(manifest.key(name)))
        return here / manifest.folder
    folder = (cache or cache_folder("bundles")) / digest
    missing = [name for name, fact in manifest.files.items() if not _is_right(folder / name, fact)]
    with Progress(f"fetching {store.uri}", sum(manifest.files[name].size for name in missing), "bytes") as progress:
        for name in missing:
            store.get_file(manifest.key(name), folder / name, progress.advance)
            _check_file(folder / name, manifest.files[name], store.uri_of(manifest.key(name)))
    return folder


def _is_right(path: Path, fact: BundleFile) -> bool:
    with suppress(FileNotFoundError):
        return path.is_file() and path.stat().st_size == fact.size and sha256_file(path) == fact.sha256
    return False


def _check_file(path: Path, fact: BundleFile, uri: str) -> None:
    try:
        size = path.stat().st_size
        sha256 = sha256_file(path) if size == fact.size else ""
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise InputError(f"{uri}: this file of the bundle is missing; publish the bundle again") from error
    if size != fact.size:
        raise InputError(f"{uri}: this file has {size} bytes, its bundle says {fact.size}; publish the bundle again")
    check_sha256(uri, fact.sha256, sha256)
