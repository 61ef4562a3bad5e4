"""Classification sets: in a folder or a bucket, known by their contents, with and without folders for train and val."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from kubeyolo.config.schema import Config
from kubeyolo.data.class_crops import ClassCrops
from kubeyolo.data.class_images import ClassFolder, class_fingerprint, class_images
from kubeyolo.data.class_layout import class_layout
from kubeyolo.data.crops import crop_bytes
from kubeyolo.errors import InputError
from kubeyolo.storage.place import Place
from kubeyolo.training import pretrain as pretraining
from kubeyolo.training.spec import TrainingSpec


def write_images(folder: Path, count: int, first: int = 0) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number:02d}.png"), np.full((8, 8, 3), first + number, np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        write_images(tmp_path / "pets" / name, 2)
    return tmp_path / "pets"


@pytest.fixture
def divided(tmp_path: Path) -> Path:
    for number, name in enumerate(("train/cat", "train/dog", "val/dog", "test/bird")):
        write_images(tmp_path / "divided" / name, 3, 10 * number)
    return tmp_path / "divided"


def test_a_folder_is_known_by_its_contents(folder: Path, tmp_path: Path) -> None:
    first = class_fingerprint(Place.of(folder))
    folder.rename(tmp_path / "moved")
    moved = tmp_path / "moved"
    assert class_fingerprint(Place.of(moved)) == first == ClassFolder.open(class_images(Place.of(moved))).digest
    path = moved / "cat" / "00.png"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert class_fingerprint(Place.of(moved)) != first


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pretrain\.data = .*/absent: no such folder; .* one folder for each class"):
        class_fingerprint(Place.of(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="at least 2 classes"):
        class_fingerprint(Place.of(tmp_path / "empty"))


def test_a_set_in_a_bucket_is_fetched_once(divided: Path, tmp_path: Path, minio_bucket: str) -> None:
    place = Place.of(f"minio://{minio_bucket}/pets")
    place.store.put_tree(divided, "")
    assert len(class_fingerprint(place)) == 64
    fetched = class_images(place, tmp_path / "cache")
    assert ClassFolder.open(fetched) == ClassFolder(
        fetched, ClassFolder.open(divided).layout, ClassFolder.open(divided).digest
    )
    assert class_images(place, tmp_path / "cache") == fetched
    with pytest.raises(InputError, match=r"pretrain\.data = .*/absent: there are no files; .* one folder for each"):
        class_fingerprint(place / "absent")
    with pytest.raises(InputError, match=r"val has a folder of images for each class, but there is no folder train"):
        place.store.delete_tree("train")
        class_fingerprint(place)


def test_folders_and_hidden_files_are_no_images(folder: Path) -> None:
    before = class_fingerprint(Place.of(folder))
    (folder / "cat" / "album.jpg").mkdir()
    (folder / "cat" / ".hidden.png").write_bytes(b"")
    assert class_fingerprint(Place.of(folder)) == before


def test_one_image_in_eight_of_a_class_is_held_out_without_val() -> None:
    paths = [f"{name}/{number:02d}.jpg" for name in ("b", "a") for number in range(17)]
    for prefix in ("", "train/"):
        train, held = class_layout([prefix + path for path in paths], "pets").parts()
        assert [path.removeprefix(prefix) for path, _ in held] == [f"{c}/{n:02d}.jpg" for c in "ab" for n in (0, 8, 16)]
        assert len(train) == 28 and {label for path, label in train if "/a/" in f"/{path}"} == {0}


def test_the_images_of_val_are_held_out(divided: Path) -> None:
    layout = ClassFolder.open(divided).layout
    train, held = layout.parts()
    assert layout.classes == ("cat", "dog")
    assert [label for _, label in train] == [0, 0, 0, 1, 1, 1]
    assert held == [(f"val/dog/{number:02d}.png", 1) for number in range(3)]


def test_a_change_of_val_changes_the_fingerprint(divided: Path) -> None:
    before = class_fingerprint(Place.of(divided))
    write_images(divided / "val/cat", 1, 99)
    assert class_fingerprint(Place.of(divided)) != before


def test_classes_named_train_and_val_are_classes_if_they_have_images() -> None:
    paths = [f"{name}/{number}.jpg" for name in ("bus", "train", "val") for number in range(2)]
    assert class_layout(paths, "vehicles").classes == ("bus", "train", "val")


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["val/rat/0.jpg", "val/dog/0.jpg"], r"pets/val: train has no class 'rat'; give these classes images in train"),
        (["val/0.jpg", "val/1.jpg"], r"pets: the 2 images of val are not in folders of classes; move them into val/<"),
        (["valid/dog/0.jpg", "val/dog/0.jpg"], r"pets: val and valid both contain the classes of val"),
        (["val/0.jpg", "val/1.jpg", "val/rat/"], r"pets: the 2 images of val are not in folders of classes"),
        (["train/rat/"], r"pets/train/rat: a class needs at least 2 images, 'rat' has 0"),
    ],
)
def test_a_set_with_a_wrong_val_is_refused(paths: list[str], message: str) -> None:
    train = [f"train/{name}/{number}.jpg" for name in ("cat", "dog") for number in range(2)]
    with pytest.raises(InputError, match=message):
        class_layout(train + paths, "pets")


DIVIDED = [f"{split}/{name}/{number}.jpg" for split in ("train", "val") for name in "ab" for number in range(2)]


@pytest.mark.parametrize(
    ("loose", "warning"),
    [
        (["train/y.jpg"], "1 of 9 (11.1 %) images are directly in train, not in the folder of a class, and are left"),
        (["val/x.jpg"], "1 of 9 (11.1 %) images are directly in val, not in the folder of a class, and are left"),
        (["val/x.jpg", "train/y.jpg"], "2 of 10 (20.0 %) images are directly in train or val, not in the folder of a"),
    ],
)
def test_images_next_to_the_folders_of_classes_are_left_out_with_a_warning(loose: list[str], warning: str) -> None:
    layout, clean = class_layout(DIVIDED + loose, "pets"), class_layout(DIVIDED, "pets")
    assert layout.classes == ("a", "b") and clean.warnings == ()
    assert (layout.images, layout.val, layout.files) == (clean.images, clean.val, clean.files)
    (line,) = layout.warnings
    assert line.startswith(warning) and f"the first: {loose[-1]}; " in line


def test_images_next_to_the_folders_of_classes_do_not_change_the_fingerprint(divided: Path) -> None:
    before = class_fingerprint(Place.of(divided))
    for split in ("train", "val"):
        cv2.imwrite(str(divided / split / "loose.png"), np.zeros((8, 8, 3), np.uint8))
    assert class_fingerprint(Place.of(divided)) == before
    assert len(ClassFolder.open(divided).layout.warnings) == 1


def test_loose_images_of_train_and_of_val_alone_are_refused() -> None:
    with pytest.raises(InputError, match=r"the images of train and val are not in folders of classes; .*train/<class>"):
        class_layout(["train/0.jpg", "train/1.jpg", "val/0.jpg", "val/1.jpg"], "pets")
    with pytest.raises(InputError, match=r"there is no folder train with folders of classes"):
        class_layout([path for path in DIVIDED if path.startswith("val")] + ["train/0.jpg"], "pets")


def test_an_empty_val_is_named_in_a_warning(divided: Path) -> None:
    for path in (divided / "val/dog").iterdir():
        path.unlink()
    layout = ClassFolder.open(divided).layout
    assert layout.val is None and len(layout.parts()[1]) == 2
    assert layout.warnings == ("val has no images; every eighth image of each class is held out of train instead",)
    in_store = class_layout([path for path in DIVIDED if path.startswith("train")] + ["val/readme.txt"], "pets")
    assert in_store.warnings == layout.warnings


def test_a_pretraining_names_a_missing_folder_and_warns_about_loose_images(divided: Path) -> None:
    config = Config.model_validate({"model": "yolov5n-r7", "pretrain": {"data": str(divided / "absent")}})
    spec = TrainingSpec(task="backbone", dataset=config.pretrain.data, output=str(divided / "out"), config=config)
    with pytest.raises(InputError, match=r"pretrain\.data = .*/absent: no such folder"):
        pretraining._Source(spec)
    cv2.imwrite(str(divided / "train/loose.png"), np.zeros((8, 8, 3), np.uint8))
    lines: list[str] = []
    pretraining._Source(spec.model_copy(update={"dataset": str(divided)})).crops(lines.append)
    assert len(lines) == 1 and lines[0].startswith("warning: 1 of 10 (10.0 %) images are directly in train, not")


def test_the_next_image_takes_the_place_of_a_damaged_image(tmp_path: Path) -> None:
    for label, name in enumerate(("cat", "dog")):
        write_images(tmp_path / "pets" / name, 20, 100 * label)
    files = [(f"{name}/{number:02d}.png", label) for label, name in enumerate(("cat", "dog")) for number in range(20)]
    for path, _ in (files[4], files[39]):
        (tmp_path / "pets" / path).write_bytes(b"not an image")
    for memory in (0, 10 * crop_bytes(32), 10**9):
        crops = ClassCrops(tmp_path / "pets", files, 32, memory)
        crops.read_ahead()
        assert crops.nbytes == min(memory, 40 * crop_bytes(32))
        taken = crops.take(np.array([39, 3, 4, 5, 4, 20]))
        assert taken.labels.tolist() == [0, 0, 0, 0, 0, 1]
        assert taken.images[:, 20, 20, 0].tolist() == [0, 3, 5, 5, 5, 100]
        (warning,) = crops.warnings("the next image is used in place of each")
        assert warning.startswith("2 of 40 (5.0 %) training images cannot be decoded, and the next image is used")
        assert "the first: cat/04.png is" in warning
        readable = crops.readable()
        assert len(readable) == 38 and np.bincount(readable.labels).tolist() == [19, 19]


def test_a_set_with_many_damaged_images_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "cat", 19)
    (tmp_path / "cat/05.png").write_bytes(b"")
    crops = ClassCrops(tmp_path, [(f"cat/{number:02d}.png", 0) for number in range(19)], 32, 10**9)
    with pytest.raises(InputError, match=r"1 of 19 \(5\.3 %\) training images cannot be decoded, and up to 5 % may"):
        crops.read_ahead()
