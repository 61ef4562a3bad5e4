"""MindSpore is imported before the code under test would set it up, so that its mode stays the tests' own."""

from __future__ import annotations

import mindspore  # noqa: F401
