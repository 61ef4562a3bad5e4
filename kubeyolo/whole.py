"""Whether the content of a reference is complete in its store: a bundle, a data set, or a document."""

from __future__ import annotations

from pydantic import ValidationError

from kubeyolo.bundle import MANIFEST_NAME as BUNDLE_NAME
from kubeyolo.bundle import UnreadableManifest, read_manifest
from kubeyolo.data.manifest import MANIFEST_NAME as DATASET_NAME
from kubeyolo.data.manifest import DatasetManifest
from kubeyolo.documents import NotJson, read_model
from kubeyolo.storage.base import NotFound, Store
from kubeyolo.storage.integrity import DamagedContent, sha256_bytes
from kubeyolo.storage.place import Place

_BUNDLES = frozenset({"bundle", "backbone"})
_DATASET = "dataset"


def is_whole(name: str, place: Place) -> bool:
    """Tell whether an output of a step is in its store, complete and unchanged.

    The checksums of all files are compared. Files in a folder are read, unless they have not changed since the last
    check; objects in a bucket have stored checksums.

    Args:
        name: Name of the output, which decides whether it is a bundle, a data set, or a document.
        place: Place of the output; without a digest the output is taken as complete.

    Raises:
        InputError: The store cannot be used.
    """
    if not place.digest:
        return True
    try:
        if name in _BUNDLES:
            return is_whole_bundle(place)
        if name == _DATASET:
            return _is_whole_dataset(place)
        return sha256_bytes(place.pinned("").read()) == place.digest
    except (NotFound, DamagedContent, NotJson, ValidationError):
        return False


def is_whole_bundle(place: Place) -> bool:
    """Tell whether a bundle has the digest of its place, and all its files; see :func:`is_whole`."""
    try:
        document = place.store.read_bytes(BUNDLE_NAME)
        manifest = read_manifest(document, place.store.uri_of(BUNDLE_NAME))
    except (NotFound, DamagedContent, UnreadableManifest):
        return False
    files = [(manifest.key(name), file.size, file.sha256) for name, file in manifest.files.items()]
    return sha256_bytes(document) == place.digest and _have_checksums(place.store, files)


def _is_whole_dataset(place: Place) -> bool:
    manifest = read_model(place.store.read_bytes(DATASET_NAME), DatasetManifest, place.uri)
    parts = [part for split in manifest.splits.values() for part in (split.index, *split.shards)]
    files = [(part.name, part.size, part.sha256) for part in parts]
    return manifest.digest == place.digest and _have_checksums(place.store, files)


def _have_checksums(store: Store, files: list[tuple[str, int, str]]) -> bool:
    sizes = {stored.key: stored.size for stored in store.list()}
    if any(sizes.get(key) != size for key, size, _ in files):
        return False
    return all(store.checksum(key) in ("", sha256) for key, _, sha256 in files)
