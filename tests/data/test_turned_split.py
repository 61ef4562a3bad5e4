"""Images that are stored turned, with the tag that says so: training and evaluation see no difference."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kubeyolo.bundle import Preprocessing
from kubeyolo.config.training_schema import AugmentConfig, DataConfig
from kubeyolo.data.loader import Loader
from kubeyolo.data.shards import write_dataset
from kubeyolo.evaluation.predictor import network_input, prepare
from kubeyolo.storage.place import Place
from tests.data.image_files import saved, smooth_image, stored_turned
from tests.data.rendered_split import RenderedSplit


def write_folder(folder, kind, turn, options):
    """Write a data set whose images lie turned in the file where ``turn`` says so."""
    source = RenderedSplit(images=18)
    index = source.index
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        for i, name in enumerate(index.file_name):
            # A drawing laid over smooth colours, so that JPEG keeps it.
            pixels = source.read_image(i) // 2 + smooth_image(int(index.width[i]), int(index.height[i]), i) // 2
            orientation = turn(i)
            (folder / split / name).write_bytes(saved(stored_turned(pixels, orientation), kind, orientation, **options))
        (folder / "annotations").mkdir(exist_ok=True)
        document = index.to_coco(["a", "b", "c"], [1, 2, 3])
        (folder / f"annotations/{split}.json").write_text(json.dumps(document))
    return folder


def third_turned(i):
    return 2 + i // 3 % 7 if i % 3 == 0 else 1


def batches_of(split):
    """Return what training sees in two epochs, and evaluation."""
    with Loader(split, DataConfig(workers=0), AugmentConfig(mixup=0.3, flipud=0.2), 96, 4, 7) as loader:
        trained = [batch for epoch in range(2) for batch in loader.epoch(epoch)]
    preprocessing = Preprocessing()
    prepared = [prepare(split.read_image(i), (96, 96), preprocessing) for i in range(len(split))]
    return trained, network_input(prepared, preprocessing)


@pytest.fixture
def stored(tmp_path):
    def store(kind, **options):
        splits = []
        for name, turn in (("upright", lambda _: 1), ("turned", third_turned)):
            folder = write_folder(tmp_path / name, kind, turn, options)
            splits.append(write_dataset(folder, Place.of(tmp_path / "store")).split("train"))
        return splits

    return store


def test_batches_of_turned_images_are_the_same_bit_for_bit(stored):
    upright, turned = stored("PNG")
    assert upright.index.orientation is None
    expected = [third_turned(i) for i in range(18)]
    assert [turned.index.orientation_of(i) for i in range(18)] == expected
    assert set(expected) == {1, 2, 3, 4, 5, 6, 7}
    np.testing.assert_array_equal(turned.index.width, upright.index.width)
    (trained, evaluated), (as_turned, evaluated_turned) = batches_of(upright), batches_of(turned)
    assert len(trained) == 10
    for one, other in zip(trained, as_turned, strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(evaluated, evaluated_turned)


def test_batches_of_turned_jpegs_differ_by_three_grey_levels_at_most(stored):
    upright, turned = stored("JPEG", quality=100, subsampling=0)
    (trained, evaluated), (as_turned, evaluated_turned) = batches_of(upright), batches_of(turned)
    for one, other in zip(trained, as_turned, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
    assert np.abs(evaluated - evaluated_turned).max() * 255 <= 3.01
    assert np.abs(evaluated - evaluated_turned).max() > 0


def test_the_digest_knows_how_images_are_turned(tmp_path):
    digests = set()
    for orientation in (1, 2, 3):
        folder = write_folder(tmp_path / f"set-{orientation}", "PNG", lambda _, tag=orientation: tag, {})
        manifest = write_dataset(folder, Place.of(tmp_path / "store")).manifest
        digests.add(manifest.digest)
    assert len(digests) == 3
