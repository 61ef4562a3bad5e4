from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kubeyolo.config.training_schema import DataConfig
from kubeyolo.data import headers, shards
from kubeyolo.data.dataset import open_dataset
from kubeyolo.data.manifest import DatasetManifest
from kubeyolo.data.shards import Reading, ShardWriter, write_dataset
from kubeyolo.errors import InputError
from kubeyolo.storage.location import FileLocation, parse
from kubeyolo.storage.place import Place
from kubeyolo.whole import is_whole


def local_path(uri: str) -> Path:
    location = parse(uri)
    assert isinstance(location, FileLocation)
    return location.path


def names_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    return {
        path.name: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.iterdir()
        if path.is_file()
    }


def test_stored_data_set_has_its_files_and_counts(small_folder, tmp_path):
    stored = write_dataset(small_folder, Place.of(tmp_path / "store"))
    manifest, uri = stored.manifest, stored.uri
    folder = local_path(uri)
    assert folder == tmp_path / "store/datasets" / f"small-{manifest.digest[:12]}"
    assert names_below(tmp_path / "store") == [
        f"datasets/{folder.name}/{name}"
        for name in ("dataset.json", "train-00000.tar", "train-index.npz", "val-00000.tar", "val-index.npz")
    ]
    assert DatasetManifest.model_validate_json((folder / "dataset.json").read_bytes()) == manifest
    train = manifest.splits["train"]
    assert (train.images, train.boxes, train.crowd) == (3, 3, 1)
    assert (manifest.name, manifest.classes, manifest.category_ids) == ("small", ("bolt", "nut"), (3, 7))
    for file in (train.index, *train.shards):
        data = (folder / file.name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.size, file.sha256)


def test_offsets_point_at_the_image_files(small_folder, tmp_path):
    stored = write_dataset(small_folder, Place.of(tmp_path / "store"))
    split = stored.split("val")
    data = (local_path(stored.uri) / "val-00000.tar").read_bytes()
    for i, name in enumerate(split.index.file_name):
        offset, length = int(split.index.offset[i]), int(split.index.length[i])
        assert data[offset : offset + length] == (small_folder / "val" / name).read_bytes()


def test_shards_are_readable_tar_archives(small_folder, tmp_path):
    uri = write_dataset(small_folder, Place.of(tmp_path / "store")).uri
    with tarfile.open(local_path(uri) / "train-00000.tar") as archive:
        assert archive.getnames() == ["001.jpg", "002.jpg", "003.jpg"]
        assert archive.extractfile("002.jpg").read() == (small_folder / "train/002.jpg").read_bytes()


def test_shards_do_not_pass_their_limit(tmp_path):
    writer = ShardWriter(tmp_path, "train", limit=10_000)
    places = [writer.add(f"{n}.jpg", bytes([n]) * 1500) for n in range(13)]
    writer.close()
    # 512 of header and 1536 of content each, 1024 at the end: four fit.
    assert [file.size for file in writer.files] == [9216, 9216, 9216, 3072]
    assert [shard for shard, _ in places] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3]
    assert [offset for _, offset in places[:5]] == [512, 2560, 4608, 6656, 512]
    for n, (shard, offset) in enumerate(places):
        assert (tmp_path / f"train-{shard:05d}.tar").read_bytes()[offset : offset + 1500] == bytes([n]) * 1500


def test_long_and_foreign_names_keep_their_offset(tmp_path):
    writer = ShardWriter(tmp_path, "train", shards.SHARD_BYTES)
    names = ["d/" * 80 + "x.jpg", "größe 影.jpg", "empty"]
    places = [writer.add(name, b"content of " + name.encode()) for name in names]
    writer.close()
    data = (tmp_path / "train-00000.tar").read_bytes()
    for name, (_, offset) in zip(names, places, strict=True):
        assert data[offset:].startswith(b"content of " + name.encode())
    with tarfile.open(tmp_path / "train-00000.tar") as archive:
        assert archive.getnames() == names


def test_many_shards_give_the_same_images(small_folder, tmp_path, monkeypatch):
    one = write_dataset(small_folder, Place.of(tmp_path / "one"))
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)
    many = write_dataset(small_folder, Place.of(tmp_path / "many"))
    assert [len(each.manifest.splits["train"].shards) for each in (one, many)] == [1, 3]
    assert one.digest == many.digest
    left, right = (each.split("train") for each in (one, many))
    assert [left.read_bytes(i) for i in range(3)] == [right.read_bytes(i) for i in range(3)]


def test_second_call_writes_nothing(small_folder, tmp_path):
    stored = write_dataset(small_folder, Place.of(tmp_path / "store"))
    uri = stored.uri
    before = snapshot(local_path(uri))
    assert write_dataset(small_folder, Place.of(tmp_path / "store")) == stored
    assert snapshot(local_path(uri)) == before
    assert [path.name for path in (tmp_path / "store/datasets").iterdir()] == [local_path(uri).name]


def test_same_content_in_another_folder_gives_the_same_bytes(small, tmp_path):
    first = write_dataset(small.write(tmp_path / "a/set"), Place.of(tmp_path / "s1"))
    for records in small.train.values():
        records.reverse()
    second = write_dataset(small.write(tmp_path / "b/set"), Place.of(tmp_path / "s2"))
    assert first.manifest.splits == second.manifest.splits
    assert first.digest == second.digest


@pytest.mark.parametrize("name", ["dataset.json", "train-00000.tar", "val-index.npz"])
def test_incomplete_data_set_is_written_again(small_folder, tmp_path, name):
    stored = write_dataset(small_folder, Place.of(tmp_path / "store"))
    uri = stored.uri
    path = local_path(uri) / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert write_dataset(small_folder, Place.of(tmp_path / "store")) == stored
    assert path.read_bytes() == content


def test_a_shard_that_was_damaged_in_its_place_is_written_again(small_folder, tmp_path):
    stored = write_dataset(small_folder, Place.of(tmp_path / "store"))
    uri = stored.uri
    path = local_path(uri) / "train-00000.tar"
    content = path.read_bytes()
    path.write_bytes(content[:700] + bytes([content[700] ^ 1]) + content[701:])
    assert not is_whole("dataset", stored.place)
    assert write_dataset(small_folder, Place.of(tmp_path / "store")) == stored
    assert path.read_bytes() == content


def test_what_a_killed_writer_has_left_is_removed(small_folder, tmp_path):
    remains = tmp_path / "store/datasets/.0a1b.kubeyolo-part"
    remains.mkdir(parents=True)
    (remains / "train-00000.tar").write_bytes(b"half")
    os.utime(remains, (0, 0))
    uri = write_dataset(small_folder, Place.of(tmp_path / "store")).uri
    assert [path.name for path in (tmp_path / "store/datasets").iterdir()] == [local_path(uri).name]


def test_simultaneous_writers_leave_one_whole_data_set(small_folder, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: write_dataset(small_folder, Place.of(tmp_path / "store")), range(4)))
    assert len({stored.uri for stored in results}) == 1
    assert len(list((tmp_path / "store/datasets").iterdir())) == 1
    assert is_whole("dataset", results[0].place)


def test_bad_data_set_leaves_nothing_behind(small_folder, tmp_path):
    (small_folder / "val/012.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"012\.jpg \(image 12 of val\.json\) is empty"):
        write_dataset(small_folder, Place.of(tmp_path / "store"))
    assert list((tmp_path / "store").rglob("*.*")) == []


def test_each_image_file_is_read_once(small_folder, tmp_path, monkeypatch):
    read: list[Path] = []
    original = headers.open_image
    monkeypatch.setattr(headers, "open_image", lambda path: (read.append(path), original(path))[1])
    write_dataset(small_folder, Place.of(tmp_path / "store"))
    images = [path for path in read if path.suffix == ".jpg"]
    assert (len(images), len(set(images))) == (6, 6)


def test_data_set_in_a_bucket_is_whole_and_written_once(small_folder, minio_bucket):
    store_uri = f"minio://{minio_bucket}/store"
    stored = write_dataset(small_folder, Place.of(store_uri))
    manifest, uri = stored.manifest, stored.uri
    assert uri == f"{store_uri}/datasets/small-{manifest.digest[:12]}"
    store = Place.of(uri).store
    before = store.list()
    assert [stored.key for stored in before] == [
        "dataset.json",
        "train-00000.tar",
        "train-index.npz",
        "val-00000.tar",
        "val-index.npz",
    ]
    assert write_dataset(small_folder, Place.of(store_uri)) == stored
    assert store.list() == before
    assert json.loads(store.read_bytes("dataset.json"))["digest"] == manifest.digest


def test_real_data_set_is_stored_with_its_counts(shared, tmp_path):
    stored = write_dataset(shared / "data/coco_cc", Place.of(tmp_path / "store"))
    manifest, uri = stored.manifest, stored.uri
    counts = {name: (s.images, s.boxes, s.crowd) for name, s in manifest.splits.items()}
    assert counts == {"train": (80, 770, 9), "val": (57, 517, 7)}
    assert len(manifest.classes) == 80
    assert manifest.category_ids[-1] == 90
    split = open_dataset(Place.of(uri)).split("val")
    sizes = np.array([split.read_image(i).shape[:2] for i in range(len(split))])
    np.testing.assert_array_equal(sizes, np.stack([split.index.height, split.index.width], 1))


def test_missing_image_is_told_with_the_file_that_may_be_meant(small, tmp_path):
    small.train["images"][0]["file_name"] = "001.png"
    with pytest.raises(InputError, match=r"001\.png .* is missing; there is '001\.jpg'"):
        write_dataset(small.write(tmp_path / "in"), Place.of(tmp_path / "store"))


@pytest.mark.parametrize("fault", ["missing", "damaged", "size"])
def test_images_at_fault_leave_an_optional_split_out(small, tmp_path, fault):
    folder = small.write(tmp_path / "in")
    shutil.copytree(folder / "val", folder / "test")
    document = json.loads((folder / "annotations" / "val.json").read_text())
    if fault == "size":
        document["images"][0] |= {"width": 30, "height": 40}
    elif fault == "damaged":
        (folder / "test" / "012.jpg").write_bytes(b"hello")
    else:
        (folder / "test" / "012.jpg").unlink()
    expected = write_dataset(folder, Place.of(tmp_path / "a")).manifest
    (folder / "annotations" / "test.json").write_text(json.dumps(document))
    stored = write_dataset(folder, Place.of(tmp_path / "b"))
    manifest, uri = stored.manifest, stored.uri
    assert manifest.digest == expected.digest and sorted(manifest.splits) == ["train", "val"]
    assert "split 'test': " in next(each.first for each in manifest.findings if each.code == "split_left_out")
    assert not [name for name in names_below(local_path(uri)) if name.startswith("test")]
    with pytest.raises(InputError, match=r"\[split_left_out\]"):
        write_dataset(
            folder, Place.of(tmp_path / "c"), reading=Reading(DataConfig(findings={"split_left_out": "refuse"}))
        )


def test_findings_renew_the_manifest_of_an_earlier_version(small, tmp_path):
    uri = write_dataset(small.write(tmp_path / "set"), Place.of(tmp_path / "store")).uri
    path = local_path(uri) / "dataset.json"
    document = json.loads(path.read_text())
    for key in ("layout", "category_keys", "levels", "findings"):
        del document[key]
    path.write_text(json.dumps({**document, "schema_version": 1}))
    stored = write_dataset(tmp_path / "set", Place.of(tmp_path / "store"))
    manifest, again = stored.manifest, stored.uri
    assert again == uri and [finding.code for finding in manifest.findings] == ["crowd_many"]
    assert json.loads(path.read_text())["schema_version"] == 2
