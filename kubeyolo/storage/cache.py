"""Where copies of stored things are kept on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """Return ``$KUBEYOLO_CACHE/<name>``, by default ``~/.cache/kubeyolo/<name>``; it may not exist yet."""
    root = os.environ.get("KUBEYOLO_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "kubeyolo") / name
