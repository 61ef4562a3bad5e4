"""References: the URI of something stored with the digest of its content, as ``minio://bucket/key@sha256:<64 digits>``.

What one step reads from another is named by a reference, so that a cache key stands for one content, and a reader finds
that content or refuses.
"""

from __future__ import annotations

import re

from kubeyolo.errors import InputError

_PINNED = re.compile(r"(?P<uri>.+)@sha256:(?P<digest>[0-9a-f]{64})", re.DOTALL)


def pin(uri: str, digest: str) -> str:
    """Return the reference of a URI whose content has this sha256 (64 hexadecimal digits)."""
    return f"{uri}@sha256:{digest}"


def split_reference(text: str) -> tuple[str, str]:
    """Return the URI and the digest of a reference; the digest of a plain URI is empty."""
    match = _PINNED.fullmatch(text)
    return (match["uri"], match["digest"]) if match else (text, "")


def check_pinned(uri: str, expected: str, found: str) -> None:
    """Refuse content that is not the one a reference names; nothing is expected of a plain URI.

    Raises:
        InputError: The content has another digest.
    """
    if expected and expected != found:
        raise InputError(
            f"{uri}: its content has changed: expected sha256 {expected[:12]}…, found {found[:12]}…; "
            "run the step that made it again"
        )
