from __future__ import annotations

import json
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import cv2
import numpy as np
import pytest

from kubeyolo.data.dataset import open_dataset
from kubeyolo.data.shards import write_dataset
from kubeyolo.errors import InputError
from kubeyolo.storage.place import Place
from kubeyolo.whole import is_whole
from tests.data.small_dataset import SmallDataset


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("written")
    source = SmallDataset().write(root / "small")
    write_dataset(source, Place.of(root / "store"))
    return source, next((root / "store/datasets").iterdir())


@pytest.fixture
def stored(written, tmp_path):
    """A copy of a stored data set, to be damaged."""
    return shutil.copytree(written[1], tmp_path / "stored")


def test_images_are_read_as_rgb(written):
    source, uri = written
    split = open_dataset(Place.of(uri)).split("train")
    assert len(split) == 3
    for i, name in enumerate(split.index.file_name):
        expected = cv2.cvtColor(cv2.imread(str(source / "train" / name)), cv2.COLOR_BGR2RGB)
        np.testing.assert_array_equal(split.read_image(i), expected)
        assert split.read_bytes(i) == (source / "train" / name).read_bytes()


def test_data_set_knows_its_classes_and_uri(written):
    dataset = open_dataset(Place.of(written[1]))
    assert dataset.classes == ("bolt", "nut")
    assert dataset.uri == written[1].as_uri()
    assert sorted(dataset.manifest.splits) == ["train", "val"]


def test_unknown_split_suggests_the_nearest(written):
    with pytest.raises(InputError, match="no split 'vall'; did you mean 'val'"):
        open_dataset(Place.of(written[1])).split("vall")


def test_split_survives_pickling_and_closing(written):
    split = open_dataset(Place.of(written[1])).split("val")
    expected = split.read_image(0)
    copy = pickle.loads(pickle.dumps(split))
    split.close()
    np.testing.assert_array_equal(copy.read_image(0), expected)
    np.testing.assert_array_equal(split.read_image(0), expected)


def image_sum(split, i):
    return int(split.read_image(i).sum())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_split_is_read_by_worker_processes(written, method):
    split = open_dataset(Place.of(written[1])).split("train")
    expected = [image_sum(split, i) for i in range(3)]
    with ProcessPoolExecutor(2, mp_context=get_context(method)) as pool:
        assert list(pool.map(image_sum, [split] * 12, [0, 1, 2] * 4)) == expected * 4


def test_split_is_read_by_threads(written):
    split = open_dataset(Place.of(written[1])).split("train")
    expected = [image_sum(split, i) for i in range(3)]
    split.close()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(image_sum, [split] * 60, [0, 1, 2] * 20)) == expected * 20


def test_folder_without_manifest_is_bad_input(tmp_path):
    with pytest.raises(InputError, match=r"no data set there \(dataset\.json is missing\)"):
        open_dataset(Place.of(tmp_path))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda text: text[:40], "not JSON ("),
        (lambda text: "[]", "not a data set manifest"),
        (lambda text: text.replace('"digest"', '"digets"'), "not a data set manifest (digest: Field required)"),
        (
            lambda text: text.replace('"schema_version":2', '"schema_version":9'),
            "schema version 9, but this program reads version 2",
        ),
        (lambda text: text.replace('"images":3', '"images":4'), "train-index.npz: does not fit its dataset.json"),
        (lambda text: text.replace('"classes":["bolt","nut"]', '"classes":["bolt"]'), "does not fit its dataset.json"),
    ],
)
def test_corrupt_manifest_is_one_clear_line(stored, change, expected):
    path = stored / "dataset.json"
    text = json.dumps(json.loads(path.read_text()), separators=(",", ":"))
    assert change(text) != text
    path.write_text(change(text))
    with pytest.raises(InputError) as caught:
        open_dataset(Place.of(stored)).split("train")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_missing_or_cut_shard_is_found_at_opening(stored):
    path = stored / "train-00000.tar"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(InputError, match=rf"train-00000\.tar: damaged, it has {len(content) - 1} bytes"):
        open_dataset(Place.of(stored)).split("train")
    path.unlink()
    with pytest.raises(InputError, match=r"train-00000\.tar: missing from the data set"):
        open_dataset(Place.of(stored)).split("train")
    assert len(open_dataset(Place.of(stored)).split("val")) == 3


def test_changed_shard_is_found_by_reading_and_by_its_checksum(stored):
    assert is_whole("dataset", open_dataset(Place.of(stored)).place)
    path = stored / "train-00000.tar"
    content = bytearray(path.read_bytes())
    content[512:700] = bytes(188)
    path.write_bytes(content)
    split = open_dataset(Place.of(stored)).split("train")
    with pytest.raises(InputError, match=r"train-00000\.tar: damaged, '001\.jpg' cannot be decoded from it"):
        split.read_image(0)
    assert split.read_image(1).shape == (48, 32, 3)
    assert not is_whole("dataset", open_dataset(Place.of(stored)).place)


def test_shard_cut_while_open_is_bad_input(stored):
    split = open_dataset(Place.of(stored)).split("train")
    (stored / "train-00000.tar").write_bytes(b"short")
    with pytest.raises(InputError, match=r"ends before '001\.jpg' is complete"):
        split.read_bytes(0)


@pytest.fixture
def in_bucket(written, minio_bucket):
    bucket = Place.of(f"minio://{minio_bucket}")
    bucket.store.put_tree(written[1], "set")
    return bucket / "set"


def test_bucket_is_downloaded_once_for_each_split(in_bucket, written, tmp_path):
    split = open_dataset(in_bucket, tmp_path / "cache").split("val")
    assert split.read_bytes(2) == (written[0] / "val/013.jpg").read_bytes()
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.*") if path.is_file()}
    assert sorted(kept) == ["val-00000.tar", "val-index.npz"]
    open_dataset(in_bucket, tmp_path / "cache").split("val")
    assert kept == {path.name: path.stat().st_mtime_ns for path in split.shards[0].parent.iterdir()}


def test_damaged_object_is_not_kept(in_bucket, tmp_path):
    store = in_bucket.store
    content = bytearray(store.read_bytes("val-00000.tar"))
    content[600] ^= 1
    store.write_bytes("val-00000.tar", bytes(content))
    with pytest.raises(InputError, match=r"set/val-00000\.tar: the content does not match its checksum"):
        open_dataset(in_bucket, tmp_path / "cache").split("val")
    assert list((tmp_path / "cache").rglob("*.tar")) == []


def test_levels_of_the_manifest_scale_deep_samples(small, tmp_path):
    folder = small.write(tmp_path / "small")
    grey = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    (folder / "train/003.jpg").write_bytes(cv2.imencode(".png", grey)[1].tobytes())
    stored = write_dataset(folder, Place.of(tmp_path / "store"))
    assert stored.manifest.levels is None
    np.testing.assert_array_equal(stored.split("train").read_image(2)[:, :, 0], grey >> 8)
    manifest = stored.manifest.model_copy(update={"levels": (0.0, 4095.0)})
    scaled = replace(stored, manifest=manifest).split("train").read_image(2)
    np.testing.assert_array_equal(scaled[:, :, 1], np.round(grey * (255 / 4095)).astype(np.uint8))


def with_index(folder, change):
    """Change the arrays of the index of train; the file keeps its length."""
    path = folder / "train-index.npz"
    with np.load(path) as archive:
        arrays = {name: archive[name].copy() for name in archive.files}
    change(arrays)
    before = path.stat().st_size
    np.savez(path, **arrays)
    assert path.stat().st_size == before


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("box_xywh", np.nan, "a box has coordinates or an area that are infinite or NaN"),
        ("box_xywh", np.inf, "a box has coordinates or an area that are infinite or NaN"),
        ("box_xywh", -1.0, "a box has a negative size"),
        ("box_area", np.nan, "a box has coordinates or an area that are infinite or NaN"),
        ("box_class", 2, "a box has a class outside of 0 to 1"),
        ("box_class", -1, "a box has a class outside of 0 to 1"),
        ("width", 0, "an image has a side of less than 1"),
        ("height", 2**31 - 1, "an image has a side of less than 1 or more than 1048576 pixels"),
        ("shard", -1, "an image is in a shard outside of 0 to 0"),
        ("shard", 7, "an image is in a shard outside of 0 to 0"),
        ("offset", -1, "an image is outside of its shard"),
        ("offset", 2**63 - 1, "an image is outside of its shard"),
        ("length", 0, "an image is outside of its shard"),
        ("length", -5, "an image is outside of its shard"),
        ("length", 2**63 - 1, "an image is outside of its shard"),
    ],
)
def test_values_of_an_index_that_lead_out_of_their_range_are_refused(stored, name, value, words):
    with_index(stored, lambda arrays: arrays[name].__setitem__(-1, value))
    with pytest.raises(InputError, match=rf"train-index\.npz: does not fit its dataset\.json: {words}.*validate the"):
        open_dataset(Place.of(stored)).index("train")


def test_an_image_of_another_size_in_a_shard_is_not_decoded(stored, monkeypatch):
    with_index(stored, lambda arrays: arrays["width"].__setitem__(0, 63))
    split = open_dataset(Place.of(stored)).split("train")
    monkeypatch.setattr("kubeyolo.data.decode.decode_jpeg", lambda *_: pytest.fail("the image was decoded"))
    with pytest.raises(InputError, match=r"damaged, '001\.jpg' cannot be decoded from it"):
        split.read_image(0)
