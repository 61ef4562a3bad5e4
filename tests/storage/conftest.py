"""The stores that every test of the contract runs on."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeyolo.storage.base import Store
from kubeyolo.storage.place import Place


@pytest.fixture(params=["file", "minio"])
def store_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return (tmp_path / "the store").as_uri()
    bucket = request.getfixturevalue("minio_bucket")
    return f"minio://{bucket}/some/prefix"


@pytest.fixture
def store(store_uri: str) -> Store:
    return Place.of(store_uri).store
