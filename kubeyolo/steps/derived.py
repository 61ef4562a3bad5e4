"""A bundle derived from another one at a place that several runs may work at: the first one stays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kubeyolo.bundle import Bundle, VersionTaken, bundle_reference
from kubeyolo.whole import is_whole


def derive_once(bundle: Bundle, uri: str, files: Mapping[str, Path], **updates: Any) -> str:
    """Publish a bundle with all files of another one and more, and return its reference.

    Where a whole bundle of the same work is there already, that one is returned: what refers to it stays true. A MINDIR
    file has other bytes at every export.

    Args:
        bundle: The bundle it is derived from.
        uri: Its folder, whose name is made of all that it depends on.
        files: Files that are added, by name.
        **updates: New values of fields of the manifest.

    Raises:
        InputError: The store cannot be used.
    """
    try:
        return bundle_reference(bundle.derive(uri, files, replace=False, **updates))
    except VersionTaken:
        there = bundle_reference(uri)
        if is_whole("bundle", there):
            return there
        return bundle_reference(bundle.derive(uri, files, replace=True, **updates))
