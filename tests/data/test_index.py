from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO

from kubeyolo.data.folder import open_source, read_annotations
from kubeyolo.data.index import SplitIndex
from kubeyolo.errors import InputError
from tests.data.rendered_split import split_index


@pytest.fixture
def read(small_folder):
    found = read_annotations(open_source(small_folder))
    return found.splits["train"], found.classes, found.category_ids


def test_boxes_are_grouped_by_image(read):
    index, _, _ = read
    assert [index.boxes_of(i) for i in range(3)] == [slice(0, 2), slice(2, 3), slice(3, 3)]
    assert index.box_image().tolist() == [0, 0, 1]
    assert (len(index), index.boxes) == (3, 3)


def test_written_index_is_read_back_equal(read, tmp_path):
    index = read[0].with_locations([0, 0, 1], [512, 2048, 512], [1000, 900, 1100])
    index.save(tmp_path / "i.npz")
    again = SplitIndex.load(tmp_path / "i.npz")
    assert again.file_name == index.file_name
    for name in ("image_id", "width", "box_start", "box_id", "box_class", "box_xywh", "box_area", "box_crowd", "shard"):
        left, right = getattr(index, name), getattr(again, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    assert again.offset.tolist() == [512, 2048, 512]
    assert again.length.tolist() == [1000, 900, 1100]


def test_equal_indices_give_equal_bytes(read, tmp_path):
    read[0].save(tmp_path / "a.npz")
    read[0].save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_index_without_shards_has_none_after_reading(read, tmp_path):
    read[0].save(tmp_path / "a.npz")
    assert SplitIndex.load(tmp_path / "a.npz").shard is None


def test_damaged_index_is_bad_input(read, tmp_path):
    path = tmp_path / "a.npz"
    read[0].save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"a\.npz: not an index"):
        SplitIndex.load(path)
    with pytest.raises(InputError, match="not an index"):
        SplitIndex.load(tmp_path / "absent.npz")


def test_arrays_that_do_not_fit_each_other_are_bad_input(read, tmp_path):
    index = read[0]
    bad = SplitIndex(**{**index.__dict__, "box_area": index.box_area[:-1]})
    bad.save(tmp_path / "a.npz")
    with pytest.raises(InputError, match=rf"a\.npz: .*arrays of {index.boxes} boxes have different lengths"):
        SplitIndex.load(tmp_path / "a.npz")


def test_coco_ground_truth_has_the_original_ids(read):
    index, classes, category_ids = read
    coco = COCO()
    coco.dataset = index.to_coco(classes, category_ids)
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    assert sorted(coco.getImgIds()) == [1, 2, 3]
    assert coco.loadCats(7)[0]["name"] == "nut"
    assert coco.loadAnns(100)[0] == {
        "id": 100,
        "image_id": 1,
        "category_id": 7,
        "bbox": [1.5, 2.25, 10.0, 12.5],
        "area": 62.5,
        "iscrowd": 0,
    }
    assert [a["id"] for a in coco.loadAnns(coco.getAnnIds(iscrowd=True))] == [102]


def test_orientations_are_stored_and_absent_ones_mean_as_stored(tmp_path):
    index = split_index([(4, 5), (6, 7)], []).with_locations([0, 0], [0, 9], [9, 9])
    index.save(tmp_path / "plain.npz")
    plain = SplitIndex.load(tmp_path / "plain.npz")
    assert plain.orientation is None and plain.orientation_of(1) == 1
    assert index.with_orientation([1, 1]).orientation is None
    index.with_orientation([1, 6]).save(tmp_path / "turned.npz")
    loaded = SplitIndex.load(tmp_path / "turned.npz")
    assert [loaded.orientation_of(i) for i in range(2)] == [1, 6]
    index.with_orientation([1, 9]).save(tmp_path / "wrong.npz")
    with pytest.raises(InputError, match=r"wrong\.npz: .* \(an orientation is not 1 to 8\)"):
        SplitIndex.load(tmp_path / "wrong.npz")
