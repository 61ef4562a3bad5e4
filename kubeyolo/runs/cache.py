"""kfp's local cache: JSON files with the outputs of tasks; the key is a digest of component, image and parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kubeyolo.documents import NotJson, read_json
from kubeyolo.regular_files import DOCUMENT_SIZE, read_regular
from kubeyolo.storage.place import Place
from kubeyolo.whole import is_whole

_RECORD = "record"


def cached_outputs(cache: Path, key: str) -> dict[str, Any]:
    """Return the outputs of the entry whose key starts with these digits; empty if there is no such entry."""
    return next(map(_read, sorted(cache.glob(f"{key}*.json"))), {})


def forget_dangling(cache: Path, store_uri: str) -> list[str]:
    """Remove the entries whose results are missing from the store or have changed; return the URIs of these results.

    kfp checks whether the files of artifacts exist, but not the data at their URIs: after the store was emptied it
    would still report hits, and the input of the next step would be missing. Entries without results are removed too:
    they come from failed containers that kfp treated as successful.
    """
    store = Place.of(store_uri)
    root = store.store.uri.rstrip("/")
    missing = []
    for path in sorted(path for path in cache.glob("*.json") if path.is_file()):
        outputs = _read(path)
        if not outputs.get(_RECORD):
            path.unlink(missing_ok=True)
        for name, value in outputs.items():
            if not isinstance(value, str) or not value.startswith(f"{root}/"):
                continue
            result = store.at(value)
            if not is_whole(name, result):
                path.unlink(missing_ok=True)
                missing.append(result.uri)
                break
    return missing


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_json(read_regular(path, DOCUMENT_SIZE), str(path))
    except (OSError, NotJson):
        return {}
    return content if isinstance(content, dict) else {}
