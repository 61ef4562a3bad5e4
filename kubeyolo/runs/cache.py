"""kfp's local cache: a JSON file of a task's outputs for each key, made of its component, image and parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kubeyolo.storage.reference import split_reference
from kubeyolo.storage.uri import open_store
from kubeyolo.whole import is_whole

_RECORD = "record"


def cached_outputs(cache: Path, key: str) -> dict[str, Any]:
    """Return the outputs of the entry whose key begins with these digits; empty when there is none."""
    for path in sorted(cache.glob(f"{key}*.json")):
        return _read(path)
    return {}


def forget_dangling(cache: Path, store_uri: str) -> list[str]:
    """Remove the entries whose results are no longer in the store as they were, and return the URIs that are missing.

    kfp looks whether the files of artifacts are there, not what a URI points at: a store that was emptied would still
    give hits, and the next step would find nothing. Removed are also entries without results: those of containers that
    failed and that kfp took for a success.
    """
    root = absolute_uri(store_uri)
    missing = []
    for path in sorted(path for path in cache.glob("*.json") if path.is_file()):
        outputs = _read(path)
        if not outputs.get(_RECORD):
            path.unlink(missing_ok=True)
        for name, value in outputs.items():
            if not isinstance(value, str) or not value.startswith(f"{root}/"):
                continue
            if not is_whole(name, value):
                path.unlink(missing_ok=True)
                missing.append(split_reference(value)[0])
                break
    return missing


def absolute_uri(store_uri: str) -> str:
    """Return the URI of a store as references below it begin, after a look whether it answers."""
    return open_store(store_uri).uri.rstrip("/")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
