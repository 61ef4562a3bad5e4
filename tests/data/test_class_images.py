"""Classification sets: in a folder or a bucket, known by their contents."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from kubeyolo.data.class_images import ClassFolder, class_fingerprint, class_images
from kubeyolo.errors import InputError
from kubeyolo.storage.place import Place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(2):
            cv2.imwrite(str(tmp_path / "pets" / name / f"{number}.png"), np.full((8, 8, 3), number, np.uint8))
    return tmp_path / "pets"


def test_a_folder_is_known_by_its_contents(folder: Path, tmp_path: Path) -> None:
    first = class_fingerprint(Place.of(folder))
    folder.rename(tmp_path / "moved")
    moved = tmp_path / "moved"
    assert class_fingerprint(Place.of(moved)) == first == ClassFolder.open(class_images(Place.of(moved))).digest
    path = moved / "cat" / "0.png"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert class_fingerprint(Place.of(moved)) != first


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: no such folder"):
        class_fingerprint(Place.of(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="at least 2 classes"):
        class_fingerprint(Place.of(tmp_path / "empty"))


def test_a_set_in_a_bucket_is_fetched_once(folder: Path, tmp_path: Path, minio_bucket: str) -> None:
    place = Place.of(f"minio://{minio_bucket}/pets")
    place.store.put_tree(folder, "")
    assert len(class_fingerprint(place)) == 64
    fetched = class_images(place, tmp_path / "cache")
    assert ClassFolder.open(fetched).digest == ClassFolder.open(folder).digest
    assert class_images(place, tmp_path / "cache") == fetched
    with pytest.raises(InputError, match="there are no files"):
        class_fingerprint(place / "absent")


def test_folders_and_hidden_files_are_no_images(folder: Path) -> None:
    before = class_fingerprint(Place.of(folder))
    (folder / "cat" / "album.jpg").mkdir()
    (folder / "cat" / ".hidden.png").write_bytes(b"")
    assert class_fingerprint(Place.of(folder)) == before
