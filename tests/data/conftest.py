"""Data sets for the tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.small_dataset import SmallDataset


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def small() -> SmallDataset:
    return SmallDataset()


@pytest.fixture
def small_folder(tmp_path: Path) -> Path:
    return SmallDataset().write(tmp_path / "small")
