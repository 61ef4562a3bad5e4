"""Batches whose images have another size every few steps."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from kubeyolo.config.training_schema import AugmentConfig, DataConfig
from kubeyolo.data.augment import Augmenter
from kubeyolo.data.labels import BoxTable
from kubeyolo.data.letterbox import resize
from kubeyolo.data.loader import Loader
from kubeyolo.data.sampler import SizeSchedule
from tests.data.rendered_split import RenderedSplit

BASE = 128
SCHEDULE = SizeSchedule((64, 128, 192), rate=2, seed=7)
PASTED = AugmentConfig(mixup=0.3, flipud=0.2)
WARPED = AugmentConfig(mixup=0.3, copy_paste=0.5, degrees=10.0, shear=3.0, perspective=0.0005)
BOTH = AugmentConfig(mixup=0.3, copy_paste=0.2)
"""Samples with a copied object are warped, and the others are not."""
PLAIN_COLORS = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}


def loader_of(workers=0, sizes=SCHEDULE, images=20, per_batch_size=4, **options):
    data = DataConfig(workers=workers)
    return Loader(RenderedSplit(images), data, BOTH, BASE, per_batch_size, 7, sizes=sizes, **options)


def digests(batches):
    return [(batch.images.shape, batch.images.tobytes(), batch.labels.tobytes()) for batch in batches]


def test_a_size_stays_for_some_steps_and_depends_on_seed_and_step_alone():
    sizes = tuple(range(320, 769, 32))
    drawn = [SizeSchedule(sizes, 10, 3).at(step) for step in range(300)]
    assert all(len({*drawn[start : start + 10]}) == 1 for start in range(0, 300, 10))
    assert [SizeSchedule(sizes, 10, 3).at(step) for step in reversed(range(300))] == drawn[::-1]
    assert [SizeSchedule(sizes, 10, 4).at(step) for step in range(300)] != drawn
    every = [SizeSchedule(sizes, 1, 3).at(step) for step in range(500)]
    assert every[:30] == drawn[::10]
    # Each of 15 sizes is drawn 33 times on average.
    counts = np.bincount(np.searchsorted(sizes, every))
    assert len(counts) == 15 and counts.min() > 15 and counts.max() < 60
    assert {SizeSchedule((416,), 10, 3).at(step) for step in range(50)} == {416}


def test_the_sizes_of_a_range_of_steps_are_those_that_the_steps_have():
    schedule = SizeSchedule(tuple(range(320, 769, 32)), 10, 3)
    for first, end in ((0, 1), (0, 15), (7, 31), (95, 400), (0, 2000), (5, 5)):
        assert schedule.between(first, end) == {schedule.at(step) for step in range(first, end)}


def test_batches_have_the_size_of_their_step_with_any_number_of_workers_and_from_any_step():
    with loader_of() as loader:
        whole = [digests(loader.epoch(epoch)) for epoch in range(3)]
        length = loader.steps_per_epoch
    shapes = [batch[0] for epoch in whole for batch in epoch]
    assert shapes == [(4, 3, SCHEDULE.at(step), SCHEDULE.at(step)) for step in range(3 * length)]
    assert {shape[-1] for shape in shapes} == {64, 128, 192}
    with loader_of(workers=2) as loader:
        assert [digests(loader.epoch(epoch)) for epoch in range(3)] == whole
        # Batches that are kept, and copies of batches, have their sizes too.
        kept = list(loader.epoch(1, start_step=1))
        assert digests(kept) == whole[1][1:]


def test_all_ranks_have_the_same_size_at_every_step():
    schedule = SizeSchedule((64, 96, 128), 1, 5)
    ranks = [loader_of(sizes=schedule, images=40, per_batch_size=1, rank=rank, world=2) for rank in range(2)]
    shapes = []
    for loader in ranks:
        with loader:
            shapes.append([batch.images.shape for epoch in range(5) for batch in loader.epoch(epoch)])
    assert shapes[0] == shapes[1] and len(shapes[0]) == 100
    assert {shape[-1] for shape in shapes[0]} == {64, 96, 128}


def test_one_size_gives_the_batches_of_a_loader_without_sizes():
    with loader_of(sizes=None) as usual, loader_of(sizes=SizeSchedule((BASE,), 3, 9)) as other:
        assert digests(usual.epoch(2)) == digests(other.epoch(2))


@pytest.mark.parametrize("augment", [PASTED, WARPED])
@pytest.mark.parametrize("size", [64, 96, 160, 256])
def test_a_resized_sample_shows_the_same_picture_and_its_boxes_fit_it(augment, size):
    split = RenderedSplit(images=20, seed=2, most_boxes=8)
    config = augment.model_copy(update=PLAIN_COLORS)
    augmenter = Augmenter(config, BoxTable(split.index), split.index.width, split.index.height, BASE)

    def tile(image):
        return resize(split.read_image(image), *map(int, augmenter.sizes[image]))

    differences, moved, rows = [], [], []
    for image in range(20):
        plan = augmenter.draw(np.random.default_rng(image), image)
        resized = plan.resized(size)
        base, out = np.empty((3, BASE, BASE), np.uint8), np.empty((3, size, size), np.uint8)
        augmenter.paint(plan, tile, base)
        augmenter.paint(resized, tile, out)
        expected = cv2.resize(base.transpose(1, 2, 0), (size, size), interpolation=cv2.INTER_AREA)
        differences.append(np.abs(out.transpose(1, 2, 0).astype(int) - expected).mean())
        usual, labels = augmenter.labels(plan), augmenter.labels(resized)
        rows.append((len(usual), len(labels)))
        if len(usual) == len(labels):
            assert (usual[:, 0] == labels[:, 0]).all()
            moved += [np.abs(usual[:, 1:] - labels[:, 1:]).max(initial=0.0) * size]
    # Only edges between images and objects differ.
    assert np.mean(differences) < 6, np.mean(differences)
    # Edges of images are rounded to whole pixels, so boxes move by less than a pixel; those of warped images do not.
    assert max(moved) < (1e-3 if augment is WARPED else 1.1)
    # A box at the limit of the rule may be kept in one of the sizes.
    assert sum(first for first, _ in rows) > 60
    assert sum(abs(first - second) for first, second in rows) <= 2
