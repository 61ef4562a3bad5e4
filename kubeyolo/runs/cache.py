"""kfp's local cache: a JSON file of a task's outputs for each key, made of its component, image and parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kubeyolo.bundle import MANIFEST_NAME as BUNDLE_NAME
from kubeyolo.data.manifest import MANIFEST_NAME as DATASET_NAME
from kubeyolo.errors import InputError
from kubeyolo.storage.uri import join_uri, open_store, split_uri

# The document that says that what an output points at is whole.
_DOCUMENTS = {"dataset": DATASET_NAME, "bundle": BUNDLE_NAME, "backbone": BUNDLE_NAME}


def cached_outputs(cache: Path, key: str) -> dict[str, Any]:
    """Return the outputs of the entry whose key begins with these digits; empty when there is none."""
    for path in sorted(cache.glob(f"{key}*.json")):
        return _read(path)
    return {}


def forget_dangling(cache: Path, store_uri: str) -> list[str]:
    """Remove the entries whose results are no longer in the store, and return the URIs that are missing.

    kfp looks whether the files of artifacts are there, not what a URI points at: a store that was emptied would still
    give hits, and the next step would find nothing. Removed are also entries without results: those of containers that
    failed and that kfp took for a success.
    """
    root = open_store(store_uri).uri.rstrip("/")
    missing = []
    for path in sorted(cache.glob("*.json")):
        outputs = _read(path)
        if not outputs.get("record"):
            path.unlink(missing_ok=True)
        for uri in _documents(outputs):
            if uri.startswith(f"{root}/") and not _exists(uri):
                path.unlink(missing_ok=True)
                missing.append(uri)
                break
    return missing


def _documents(outputs: dict[str, Any]) -> Iterator[str]:
    """Yield the URIs of the documents that a task's outputs point at."""
    for name, value in outputs.items():
        if not isinstance(value, str) or "://" not in value:
            continue
        if name == "record":
            yield value
        elif name in _DOCUMENTS:
            yield join_uri(value, _DOCUMENTS[name])


def _exists(uri: str) -> bool:
    try:
        parent, name = split_uri(uri)
        return open_store(parent).exists(name)
    except InputError:
        return False


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
