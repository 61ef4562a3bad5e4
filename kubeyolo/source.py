"""The digest of the library's source: a parameter of every step, so that a cached result is never from other code."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

_ROOT = Path(__file__).parent
# What decides how a step is started and shown, and not what it makes.
_LEFT_OUT = frozenset({"cli", "compiled", "runs"})
_SUFFIXES = frozenset({".py", ".yaml", ".html", ".css", ".js", ".j2"})
# Their versions change what the same source makes.
_PACKAGES = ("mindspore", "numpy", "onnx", "onnxruntime", "opencv-python-headless", "pycocotools")


@cache
def source_digest() -> str:
    """Return 16 hexadecimal digits of the sha256 over the library's files and the versions of what it computes with."""
    digest = hashlib.sha256()
    for path in sorted(_ROOT.rglob("*")):
        name = path.relative_to(_ROOT)
        if path.suffix in _SUFFIXES and name.parts[0] not in _LEFT_OUT:
            digest.update(f"{name.as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    for package in _PACKAGES:
        digest.update(f"{package}=={_version(package)}\0".encode())
    return digest.hexdigest()[:16]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
