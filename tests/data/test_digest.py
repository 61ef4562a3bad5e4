from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubeyolo.config.training_schema import DataConfig
from kubeyolo.data import digest
from kubeyolo.data.digest import content_digest, source_facts
from kubeyolo.data.folder import count_classes, open_source, read_annotations
from kubeyolo.data.shards import write_dataset
from kubeyolo.errors import InputError
from kubeyolo.storage import checksums
from kubeyolo.storage.integrity import sha256_file
from kubeyolo.storage.place import Place
from tests.data.formats import documented_coco, labelme, roboflow_voc, ultralytics_yolo
from tests.data.small_dataset import SmallDataset


def fingerprint(source):
    return source_facts(source).fingerprint


def digest_of(folder):
    source = open_source(folder)
    annotations = read_annotations(source)
    splits = {
        name: (index, [sha256_file(source.images(name) / file) for file in index.file_name])
        for name, index in annotations.splits.items()
    }
    return content_digest(annotations.classes, annotations.category_ids, splits)


EXPECTED = "d4ff001f57e9f4ba0d9f638bd8241ba3459703e120478f914984fc4ee7756fdc"


def test_digest_of_a_given_data_set_never_changes(tmp_path):
    """A stored data set is found again by later versions; a new format needs a new name in the digest."""
    data = SmallDataset()
    folder = data.write(tmp_path)
    for path in folder.rglob("*.jpg"):
        path.write_bytes(path.name.encode())  # what encoders write may change
    assert digest_of(folder) == EXPECTED


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = SmallDataset().write(tmp_path_factory.mktemp("digest") / "small")
    return folder, digest_of(folder)


@given(
    seed=st.integers(0, 2**32),
    indent=st.sampled_from([None, 0, 3]),
    as_float=st.booleans(),
    extra=st.dictionaries(st.text(max_size=8).map(lambda key: f"x{key}"), st.integers(), max_size=3),
    dot=st.booleans(),
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_digest_does_not_know_how_the_json_is_written(written, seed, indent, as_float, extra, dot):
    folder, expected = written
    shuffle = random.Random(seed).shuffle
    data = SmallDataset()
    with TemporaryDirectory() as copy:
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        for split, document in (("train", data.train), ("val", data.val)):
            for records in document.values():
                for number, record in enumerate(records):
                    items = [*record.items(), *extra.items()]
                    shuffle(items)
                    records[number] = dict(items)
                shuffle(records)
            for annotation in document["annotations"]:
                if as_float:
                    annotation["bbox"] = [float(value) for value in annotation["bbox"]]
                annotation["segmentation"] = []
            for image in document["images"]:
                image["file_name"] = "./" * dot + image["file_name"]
            items = list(document.items())
            shuffle(items)
            text = json.dumps(dict(items), indent=indent, ensure_ascii=bool(seed % 2))
            Path(copy, "annotations", f"{split}.json").write_text(text)
        assert digest_of(Path(copy)) == expected


CHANGES = {
    "box moved": lambda d, f: d.train["annotations"][0].update(bbox=[1.5, 2.25, 10.0, 12.25]),
    "box of other class": lambda d, f: d.train["annotations"][0].update(category_id=3),
    "box of other image": lambda d, f: d.train["annotations"][2].update(image_id=3),
    "area": lambda d, f: d.train["annotations"][0].update(area=62.0),
    "crowd": lambda d, f: d.train["annotations"][1].update(iscrowd=1),
    "class renamed": lambda d, f: [s["categories"][0].update(name="gut") for s in (d.train, d.val)],
    "image id": lambda d, f: d.train["images"][2].update(id=77),
    "box removed": lambda d, f: d.train["annotations"].pop(),
    "image removed": lambda d, f: d.train["images"].pop(),
    "pixel": lambda d, f: (f / "train/003.jpg").write_bytes((f / "train/003.jpg").read_bytes() + b"\0"),
    "names exchanged": lambda d, f: (
        d.train["images"][0].update(file_name="002.jpg"),
        d.train["images"][1].update(file_name="001.jpg"),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_digest_and_fingerprint_change_with_the_content(small, tmp_path, change):
    folder = small.write(tmp_path)
    before = digest_of(folder), fingerprint(folder)
    CHANGES[change](small, folder)
    for split, document in (("train", small.train), ("val", small.val)):
        (folder / f"annotations/{split}.json").write_text(json.dumps(document))
    after = digest_of(folder), fingerprint(folder)
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_fingerprint_does_not_know_the_place_or_other_files(small_folder, tmp_path):
    before = fingerprint(small_folder)
    moved = tmp_path / "elsewhere"
    shutil.copytree(small_folder, moved)
    (moved / "README").write_text("note")
    (moved / "annotations/captions_train.json").write_text("{}")
    os.utime(moved / "train/001.jpg", (1, 1))
    assert fingerprint(moved) == before == fingerprint(str(moved)) == fingerprint(moved.as_uri())


def test_fingerprint_of_a_missing_source_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        fingerprint(tmp_path / "absent")
    (tmp_path / "annotations").mkdir()
    with pytest.raises(InputError, match="there are no files; expected COCO"):
        fingerprint(tmp_path)


def test_bucket_and_folder_have_the_same_digest(small_folder, tmp_path, minio_bucket):
    source = f"minio://{minio_bucket}/sets/small"
    Place.of(f"minio://{minio_bucket}").store.put_tree(small_folder, "sets/small")
    here = write_dataset(small_folder, Place.of(tmp_path / "store"))
    there = write_dataset(source, Place.of(tmp_path / "store"))
    assert here.digest == there.digest == digest_of(small_folder)
    assert here.uri == there.uri


def test_fingerprint_of_a_bucket_changes_with_an_object(small_folder, minio_bucket):
    source = f"minio://{minio_bucket}/small"
    store = Place.of(source).store
    store.put_tree(small_folder, "")
    before = fingerprint(source)
    store.write_bytes("README", b"note")
    assert fingerprint(source) == before
    store.write_bytes("train/001.jpg", store.read_bytes("train/001.jpg") + b"\0")
    assert fingerprint(source) != before


def test_changed_bucket_is_downloaded_again(small, tmp_path, minio_bucket):
    source = f"minio://{minio_bucket}/small"
    store = Place.of(source).store
    store.put_tree(small.write(tmp_path / "a"), "")
    first = open_source(source)
    assert first.root == open_source(source).root
    small.train["annotations"].pop(0)
    store.write_bytes("annotations/train.json", json.dumps(small.train).encode())
    second = open_source(source)
    assert second.root != first.root
    assert read_annotations(second).splits["train"].boxes == 2
    assert [path.name for path in second.root.parent.iterdir() if path.name.startswith(".")] == []


def test_only_what_belongs_to_the_data_set_is_downloaded(small, tmp_path, minio_bucket):
    source = f"minio://{minio_bucket}/small"
    store = Place.of(source).store
    store.put_tree(small.write(tmp_path / "a"), "")
    store.write_bytes("annotations/captions_train.json", b"{}")
    store.write_bytes("masks/001.png", b"x")
    folder = open_source(source)
    found = sorted(path.relative_to(folder.root).as_posix() for path in folder.root.rglob("*") if path.is_file())
    images = [f"train/{n:03d}.jpg" for n in (1, 2, 3)] + [f"val/{n:03d}.jpg" for n in (11, 12, 13)]
    assert found == ["annotations/train.json", "annotations/val.json", *images]


def test_a_folder_is_read_once_while_no_file_of_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checksums, "_SETTLED_SECONDS", -60.0)
    read = []
    monkeypatch.setattr(digest, "sha256_file", lambda path: read.append(path) or sha256_file(path))
    folder = SmallDataset().write(tmp_path / "small")
    before, files = fingerprint(folder), len(read)
    assert files > 2 and fingerprint(folder) == before and len(read) == files
    image = next(folder.rglob("*.jpg"))
    facts, content = image.stat(), image.read_bytes()
    image.write_bytes(content[::-1])
    os.utime(image, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert fingerprint(folder) != before and len(read) == 2 * files
    image.rename(image.with_name("other.jpg"))
    assert fingerprint(folder) != before and len(read) == 3 * files


def test_a_link_that_leads_nowhere_and_that_nothing_names_changes_nothing(small_folder):
    before = fingerprint(small_folder)
    (small_folder / "train" / "other.jpg").symlink_to("/nowhere/other.jpg")
    assert fingerprint(small_folder) == before


@pytest.mark.parametrize("write", [documented_coco, ultralytics_yolo, roboflow_voc, labelme])
def test_classes_with_boxes_are_counted_in_a_folder(write, tmp_path):
    write(tmp_path / "data")
    assert count_classes(tmp_path / "data", DataConfig()) == 2


def test_classes_are_not_counted_in_a_folder_that_cannot_be_read(tmp_path):
    documented_coco(tmp_path)
    (annotations,) = (tmp_path / "annotations").glob("*train*.json")
    annotations.write_text("{")
    assert count_classes(tmp_path, DataConfig()) == 0
    assert count_classes(tmp_path / "absent", DataConfig()) == 0
