"""Fixtures for all tests: where shared data and golden numbers are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def shared_folder() -> Path:
    """Return the folder of shared test data, which may not exist."""
    return Path(os.environ.get("KUBEYOLO_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = shared_folder()
    if not folder.is_dir():
        pytest.skip("../shared is absent")
    return folder


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    folder = Path(os.environ.get("KUBEYOLO_GOLDEN", shared_folder() / "golden"))
    if not folder.is_dir():
        pytest.skip("../shared is absent")
    return folder
