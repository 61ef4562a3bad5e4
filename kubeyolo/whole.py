"""Whether what a reference names is in its store, whole and unchanged: a bundle, a data set, or a document."""

from __future__ import annotations

from pydantic import ValidationError

from kubeyolo.bundle import MANIFEST_NAME as BUNDLE_NAME
from kubeyolo.bundle import UnreadableManifest, read_manifest
from kubeyolo.data.manifest import MANIFEST_NAME as DATASET_NAME
from kubeyolo.data.manifest import DatasetManifest, StoredFile
from kubeyolo.storage.base import NotFound, Store
from kubeyolo.storage.integrity import DamagedContent, sha256_bytes
from kubeyolo.storage.reference import split_reference
from kubeyolo.storage.uri import open_store, split_uri

BUNDLES = frozenset({"bundle", "backbone"})
"""Names of outputs that are bundles."""

DATASET = "dataset"
"""Name of the output that is a data set."""


def is_whole(name: str, reference: str) -> bool:
    """Tell whether an output of a step is in its store as it was.

    Files are compared with their checksums: those of a folder are read, or remembered where they were not written
    since; objects of a store carry theirs.

    Args:
        name: Name of the output; it says what the output is.
        reference: Its reference. Other texts are always whole.

    Raises:
        InputError: The store cannot be used.
    """
    uri, digest = split_reference(reference)
    if not digest or "://" not in uri:
        return True
    try:
        if name in BUNDLES:
            return _is_whole_bundle(open_store(uri), digest)
        if name == DATASET:
            return _is_whole_dataset(open_store(uri), digest)
        folder, document = split_uri(uri)
        return sha256_bytes(open_store(folder).read_bytes(document)) == digest
    except (NotFound, DamagedContent, UnreadableManifest, ValidationError):
        return False


def _is_whole_bundle(store: Store, digest: str) -> bool:
    document = store.read_bytes(BUNDLE_NAME)
    manifest = read_manifest(document, store.uri_of(BUNDLE_NAME))
    files = [(manifest.key(name), file.size, file.sha256) for name, file in manifest.files.items()]
    return sha256_bytes(document) == digest and _have_checksums(store, files)


def _is_whole_dataset(store: Store, digest: str) -> bool:
    manifest = DatasetManifest.model_validate_json(store.read_bytes(DATASET_NAME))
    parts: list[StoredFile] = [part for split in manifest.splits.values() for part in (split.index, *split.shards)]
    files = [(part.name, part.size, part.sha256) for part in parts]
    return manifest.digest == digest and _have_checksums(store, files)


def _have_checksums(store: Store, files: list[tuple[str, int, str]]) -> bool:
    sizes = {stored.key: stored.size for stored in store.list()}
    if any(sizes.get(key) != size for key, size, _ in files):
        return False
    return all(store.checksum(key) in ("", sha256) for key, _, sha256 in files)
