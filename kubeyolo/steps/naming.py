"""The name of a run: model, data set, and a digest of its parameters, so that the same command finds the run again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

_DIGITS = 8
_LONGEST = 63
"""Largest length of a name: it is also a label value, and a part of object names, on Kubernetes."""


def run_name(model: str, data: str, parameters: Mapping[str, Any]) -> str:
    """Return the name of a run, such as ``yolov5n-r7-bccd-1f3a9c07``.

    Args:
        model: Name of the model.
        data: Path or URI of the data set; its last part is used in the name.
        parameters: Everything that the results depend on; its digest is used in the name.
    """
    content = json.dumps(parameters, sort_keys=True, separators=(",", ":"), default=str)
    digest = hashlib.sha256(content.encode()).hexdigest()[:_DIGITS]
    room = _LONGEST - len(model) - _DIGITS - 2
    return f"{model}-{dataset_label(data)[:room].rstrip('-')}-{digest}"


def dataset_label(data: str) -> str:
    """Return the last part of a path or URI in lower-case letters, digits and dashes."""
    last = PurePosixPath(urlsplit(data).path.rstrip("/") or urlsplit(data).netloc or data).name
    return re.sub(r"[^a-z0-9]+", "-", last.lower()).strip("-") or "data"
