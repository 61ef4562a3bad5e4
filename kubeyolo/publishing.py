"""Publishes bundles by compare-and-swap, from files or from an existing bundle, and repairs damaged files."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeGuard

from pydantic import ValidationError

from kubeyolo.bundle import (
    MANIFEST_NAME,
    Bundle,
    BundleFile,
    BundleManifest,
    is_right,
    open_bundle,
    read_bundle,
    read_document,
    read_manifest,
    read_signature,
)
from kubeyolo.errors import InputError, WorkError, first_problem
from kubeyolo.progress import Progress
from kubeyolo.provenance import made_now
from kubeyolo.signing import SIGNATURE_NAME, Signer
from kubeyolo.source import installed_versions, results_source
from kubeyolo.storage.base import NotFound, Store, check_key
from kubeyolo.storage.integrity import DamagedContent, sha256_bytes, sha256_file
from kubeyolo.storage.owned_folder import (
    check_owned,
    owned_folder,
    remove_abandoned,
    remove_old,
    remove_unused,
    removed_when_unused,
)
from kubeyolo.storage.place import Place
from kubeyolo.storage.workspace import temporary_folder
from kubeyolo.whole import is_whole_bundle

_MOST_PUBLISHERS = 100
_PACKAGES = (
    "hotcoco",
    "kubeyolo",
    "mindspore",
    "numpy",
    "onnx",
    "onnxruntime",
    "opencv-python-headless",
    "openvino",
    "pillow",
    "pycocotools",
    "simplejpeg",
)


class VersionTaken(InputError):
    """A different bundle is published in this folder."""


def publish_bundle(
    place: Place,
    manifest: BundleManifest,
    files: Mapping[str, Path],
    *,
    replace: bool = True,
    checked: Mapping[str, BundleFile] | None = None,
) -> Bundle:
    """Store files as a bundle and return it.

    The files are stored in a folder of their own, then the manifest is written by compare-and-swap: a reader finds a
    complete bundle or no bundle, and a publisher replaces only the manifest that it has read. Publishing the same
    bundle again changes nothing, except that it repairs damaged files.

    If the environment names a signing key (:mod:`kubeyolo.signing`), the bundle is signed. The signature is among the
    files, so that it is published by the same compare-and-swap.

    Args:
        place: The folder of the bundle.
        manifest: The manifest; sizes, checksums and versions of the packages installed here are filled in.
        files: Files by their name in the bundle.
        replace: Whether to replace a different bundle that is published there; its files are then removed.
        checked: Sizes and checksums of files that have been checked before.

    Raises:
        InputError: A file is missing, a name is not allowed, the signing key or the store cannot be used.
        VersionTaken: A different bundle is published there, perhaps since this call started, and ``replace`` is off.
        WorkError: A file changed while it was copied, or other processes kept replacing the bundle.
    """
    for name, path in files.items():
        if check_key(name) in (MANIFEST_NAME, SIGNATURE_NAME):
            kind = "manifest" if name == MANIFEST_NAME else "signature"
            raise InputError(f"{place}: {name} is the {kind} of the bundle, not one of its files")
        if not path.is_file():
            raise InputError(f"{path}: there is no such file, which the bundle {place} needs")
    store, known, signer = place.store, checked or {}, Signer.from_environment()
    facts = {
        name: known.get(name) or BundleFile(size=path.stat().st_size, sha256=sha256_file(path))
        for name, path in sorted(files.items())
    }
    packages = dict(sorted({**manifest.packages, **package_versions()}.items()))
    complete = manifest.model_copy(update={"files": facts, "packages": packages, "folder": ""})

    def is_used(folder: str) -> bool:
        return _is_used(store, folder)

    current = _published(store, replace)
    # Remains of killed publishers are removed even if there is nothing to publish.
    for folder in {"", _folder_of(current)}:
        store.remove_remains(folder)
    remove_abandoned(store, is_used)
    if _is_same(current, complete):
        # Before the files: if the bundle is replaced meanwhile, the signature is removed with them.
        _put_signature(store, current, signer)
        if _repair_files(store, current.manifest, files):
            return Bundle(current.manifest, place.pinned(current.digest))
        current = _published(store, replace)
    if current is not None and not replace:
        raise _taken(store)
    with owned_folder(place, complete.content_folder, is_used, [*facts]) as folder:
        new = complete.model_copy(update={"folder": folder})
        _put_files(store, new, files, new.files)
        _put_signature(store, _Published(new, new.document, ""), signer)
        check_owned(store, folder)
        with removed_when_unused(store, _folder_of(current), is_used):
            published, replaced = _swap(store, new, current, replace)
    if published.manifest.folder != new.folder:
        # Another process has published the same bundle in the meantime, perhaps without a signature.
        _put_signature(store, published, signer)
    if replaced is not None:
        _remove_files(store, replaced)
    return Bundle(published.manifest, place.pinned(published.digest))


def derive_bundle(
    bundle: Bundle,
    place: Place,
    files: Mapping[str, Path],
    *,
    step: str = "derive",
    inputs: Mapping[str, str] = MappingProxyType({}),
    replace: bool = True,
    **updates: Any,
) -> Bundle:
    """Publish a bundle with new files and all other files of an existing bundle, and return it.

    Args:
        bundle: The bundle that the new bundle is derived from.
        place: The folder of the new bundle; it must differ from the folder of ``bundle``.
        files: Files by their name in the bundle; they replace files of the same name.
        step: Name of the step or command that derives it, for its provenance.
        inputs: Digests of what the new bundle depends on besides ``bundle``, by name.
        replace: Whether to replace a different bundle that is published there.
        **updates: New values of fields of the manifest; the other fields stay.

    Raises:
        InputError: The folder is that of ``bundle``, or a value does not fit the manifest.
        VersionTaken: A different bundle is published there, and ``replace`` is off.
    """
    check_apart(bundle, place)
    parent = bundle.manifest
    # Packages that are not installed here keep the versions from the parent.
    made = made_now(step, {"bundle": bundle.digest, **inputs}, results_source())
    history = (*parent.provenance, made)
    values = {
        **parent.model_dump(),
        **updates,
        "parent": bundle.uri,
        "folder": "",
        "files": {},
        "provenance": [each.model_dump() for each in history],
    }
    try:
        manifest = BundleManifest.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{place}: {first_problem(error)}") from error
    kept = {name: fact for name, fact in parent.files.items() if name not in files}
    paths = {name: bundle.path(name) for name in parent.files} | {**files}
    return publish_bundle(place, manifest, paths, replace=replace, checked=kept)


def check_apart(bundle: Bundle, place: Place) -> None:
    """Refuse the folder of a bundle as the place of a bundle that is derived from it.

    Raises:
        InputError: The place is the folder of the bundle.
    """
    if place.store.uri == bundle.uri:
        raise InputError(f"{bundle.uri}: a bundle cannot be derived into its own folder; choose a different folder")


def derive_once(bundle: Bundle, place: Place, files: Mapping[str, Path], **about: Any) -> Bundle:
    """Publish a derived bundle and return it; if several runs do the same work, the first bundle stays.

    A complete bundle in the folder is returned unchanged, so that references to it stay valid: exporting a network
    again gives a MINDIR file with different bytes.

    Args:
        bundle: The bundle that the new bundle is derived from.
        place: The folder of the new bundle, whose name is a digest of everything that the bundle depends on.
        files: Files that are added, by name.
        **about: Step, inputs and new values of fields of the manifest; see :func:`derive_bundle`.

    Raises:
        InputError: The store cannot be used.
    """
    try:
        return derive_bundle(bundle, place, files, replace=False, **about)
    except VersionTaken:
        published = read_bundle(place)
        if is_whole_bundle(published.place):
            return published
        return derive_bundle(bundle, place, files, replace=True, **about)


def repair_bundle(place: Place, files: Mapping[str, Path]) -> Bundle:
    """Replace damaged files of a published bundle and return it; its manifest does not change.

    Args:
        place: The folder of the bundle.
        files: Files by their name in the bundle; files whose content differs from the published files are not used.

    Raises:
        InputError: There is no bundle, or a damaged file is not among ``files``.
    """
    manifest = read_bundle(place).manifest
    same = {
        name: path for name, path in files.items() if name in manifest.files and is_right(path, manifest.files[name])
    }
    _repair_files(place.store, manifest, same)
    return open_bundle(place)


def sign_bundle(place: Place) -> Bundle:
    """Sign a published bundle with the key that the environment names, after checking all its files, and return it.

    An existing signature is replaced. Without a signing key nothing changes, and the bundle is only read.

    Raises:
        InputError: There is no bundle, a file is missing or was changed, or the signing key cannot be used.
    """
    signer = Signer.from_environment()
    if signer is None:
        return read_bundle(place)
    document = read_document(place)
    published = _Published(read_manifest(document, place.store.uri_of(MANIFEST_NAME)), document, "")
    pinned = place.pinned(published.digest)
    with temporary_folder("sign") as folder:
        # Not the usual cache, which may have copies of files that were changed in the store.
        Bundle(published.manifest, pinned, folder).fetched()
    _put_signature(place.store, published, signer)
    return Bundle(published.manifest, pinned)


def remove_unnamed(place: Place, folder: str) -> bool:
    """Remove a folder of files that a killed publisher has left, and return whether it was removed.

    Args:
        place: The folder of the bundle; it need not have a manifest.
        folder: Name of the folder of files. It stays if the manifest names it, or if another process owns it now.

    Raises:
        InputError: The store cannot be used.
    """
    store = place.store
    return remove_old(store, folder, lambda name: _is_used(store, name))


def package_versions() -> dict[str, str]:
    """Return the versions of the installed packages that a model depends on; none of the packages is imported."""
    return installed_versions(_PACKAGES)


@dataclass(frozen=True)
class _Published:
    """A published manifest, with the bytes and the etag of ``bundle.json``."""

    manifest: BundleManifest
    document: bytes
    etag: str

    @property
    def digest(self) -> str:
        """The sha256 of ``bundle.json``."""
        return sha256_bytes(self.document)


@dataclass(frozen=True)
class _Unreadable:
    """The etag of a ``bundle.json`` that cannot be read."""

    etag: str


def _published(store: Store, replace: bool) -> _Published | _Unreadable | None:
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
        return _Published(read_manifest(document, store.uri_of(MANIFEST_NAME)), document, etag)
    except InputError:
        return _Unreadable(etag)


def _folder_of(current: _Published | _Unreadable | None) -> str:
    return current.manifest.folder if isinstance(current, _Published) else ""


def _is_same(current: _Published | _Unreadable | None, manifest: BundleManifest) -> TypeGuard[_Published]:
    """Tell whether the bundle that is published now has the given manifest."""
    return isinstance(current, _Published) and current.manifest.is_same_bundle(manifest)


def _swap(
    store: Store, new: BundleManifest, current: _Published | _Unreadable | None, replace: bool
) -> tuple[_Published, _Published | None]:
    """Replace the current manifest, and return the manifest published now and the replaced manifest.

    If another process has published the same bundle meanwhile, nothing is replaced.
    """
    document = new.document
    for _ in range(_MOST_PUBLISHERS):
        if current is None:
            done = store.create_bytes(MANIFEST_NAME, document)
        else:
            done = store.replace_bytes(MANIFEST_NAME, document, current.etag)
        if done:
            replaced = current if isinstance(current, _Published) else None
            return _Published(new, document, ""), replaced
        current = _published(store, replace)
        if _is_same(current, new):
            return current, None
        if current is not None and not replace:
            raise _taken(store)
    raise WorkError(f"{store.uri}: other processes keep publishing here; stop them, then publish again")


def _taken(store: Store) -> VersionTaken:
    return VersionTaken(f"{store.uri}: a different bundle is published there; choose a different folder")


def _is_used(store: Store, folder: str) -> bool:
    """Tell whether the current manifest names this folder; an unreadable manifest may name it."""
    try:
        return read_manifest(store.read_bytes(MANIFEST_NAME), store.uri_of(MANIFEST_NAME)).folder == folder
    except NotFound:
        return False
    except InputError:
        return True


def _remove_files(store: Store, replaced: _Published) -> None:
    manifest = replaced.manifest
    if manifest.folder:
        remove_unused(store, manifest.folder, lambda name: _is_used(store, name))
        return
    for name in (*manifest.files, SIGNATURE_NAME):
        store.delete(name)


def _repair_files(store: Store, manifest: BundleManifest, files: Mapping[str, Path]) -> bool:
    """Replace the damaged files of a published bundle; in an object store all ``files`` are written again.

    Returns:
        Whether the bundle is still published. If it was replaced in the meantime, its files are removed.
    """
    here = store.local_path()
    damaged = {
        name: fact
        for name, fact in manifest.files.items()
        if name in files and (here is None or not is_right(here / manifest.key(name), fact))
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
                raise WorkError(f"{files[name]}: the file changed while it was being published; publish again")


def _put_signature(store: Store, published: _Published, signer: Signer | None) -> None:
    """Sign a ``bundle.json``, unless its signature was made with the same key."""
    if signer is None:
        return
    signature = None
    with suppress(DamagedContent):
        signature = read_signature(store, published.manifest)
    if signature is None or not signer.trusted.verify(published.document, signature):
        store.write_bytes(published.manifest.key(SIGNATURE_NAME), signer.sign(published.document))
