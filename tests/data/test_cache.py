"""The cache gives the pixels of the decoder whatever it has stored, and a rolling cache decodes each image once."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubeyolo.config.training_schema import AugmentConfig, DataConfig
from kubeyolo.data.batches import partner_window
from kubeyolo.data.cache import CachePlan, ImageCache
from kubeyolo.data.loader import Loader
from kubeyolo.data.sampler import Sampler
from kubeyolo.data.shared_memory import SharedMemory
from tests.data.rendered_split import RenderedSplit

SIDE = 8
TILE = SIDE * SIDE * 3


class Decoder:
    """Decodes an image of which every pixel is its number, and counts."""

    def __init__(self):
        self.decoded = Counter()

    def __call__(self, image):
        self.decoded[image] += 1
        return np.full((SIDE, SIDE, 3), image, np.uint8)


def caches_of(images, tiles, readers=1, rolling=True):
    """Return caches that share a memory with room for some images, as different processes have them."""
    sizes = np.full((images, 2), SIDE, np.int64)
    plan = CachePlan(images, images * TILE, tiles * TILE, readers, rolling)
    memory, decode = SharedMemory(plan.size), Decoder()
    return [ImageCache(decode, sizes, plan, memory) for _ in range(readers)], decode


def test_a_rolling_cache_has_the_images_whose_turn_was_last():
    (cache,), decode = caches_of(images=30, tiles=10)
    for image in range(30):
        cache.begin_sample(image, is_partner=True)
        # All of the last nine are there, so one image is decoded.
        for partner in range(max(image - 9, 0), image + 1):
            assert (cache.read(partner) == partner).all()
    assert decode.decoded == Counter(range(30))
    cache.begin_sample(29, is_partner=True)
    assert (cache.read(3) == 3).all() and decode.decoded[3] == 2


def test_an_image_whose_turn_comes_again_stays_for_a_whole_window_and_is_not_decoded_again():
    (cache,), decode = caches_of(images=30, tiles=10)
    for image in [*range(8), 0, *range(8, 16)]:
        cache.begin_sample(image, is_partner=True)
    assert (cache.read(0) == 0).all() and decode.decoded[0] == 1
    cache.begin_sample(16, is_partner=True)
    cache.begin_sample(17, is_partner=True)
    assert (cache.read(0) == 0).all() and decode.decoded[0] == 2


def test_an_image_that_a_process_reads_is_not_overwritten_by_another():
    (slow, fast), decode = caches_of(images=60, tiles=10, readers=2)
    slow.begin_sample(0, is_partner=True)
    held = slow.read(0)
    for image in range(1, 40):
        fast.begin_sample(image, is_partner=True)
        assert (fast.read(image) == image).all() and (held == 0).all()
    # There was room for nine more.
    assert decode.decoded == Counter(range(40)) and (fast.read(20) == 20).all() and decode.decoded[20] == 2
    slow.begin_sample(40, is_partner=True)
    for image in range(41, 60):
        fast.begin_sample(image, is_partner=True)
        fast.read(image)
    assert (slow.read(40) == 40).all() and (slow.read(0) == 0).all() and decode.decoded[0] == 2


def test_a_cache_that_does_not_roll_keeps_what_it_read_first():
    caches, decode = caches_of(images=6, tiles=4, readers=2, rolling=False)
    for image in [3, 1, 5, 0, 2, 4, 3, 1, 5, 0, 2, 4]:
        for cache in caches:
            cache.begin_sample(image, is_partner=True)
            assert (cache.read(image) == image).all()
    assert decode.decoded == {3: 1, 1: 1, 5: 1, 0: 1, 2: 4, 4: 4}


@given(
    sides=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12),
    tiles=st.floats(0, 1.2),
    rolling=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_pixels_are_those_of_the_decoder_for_any_room_and_any_reads(sides, tiles, rolling, seed):
    sizes, rng = np.array(sides, np.int64), np.random.default_rng(seed)
    limit = int(tiles * sizes.prod(axis=1).sum() * 3) + 8 * (4 + len(sizes))
    plan = CachePlan.of(sizes, limit, 2, rolling)
    assert plan.size <= max(limit, 0)
    memory = SharedMemory(plan.size) if plan.size else None
    pictures = [rng.integers(0, 256, (h, w, 3)).astype(np.uint8) for w, h in sides]
    caches = [ImageCache(pictures.__getitem__, sizes, plan, memory) for _ in range(2)]
    held = [[], []]
    for _ in range(60):
        number = int(rng.integers(2))
        # What a process read for its sample must be good until its next sample.
        assert all((pixels == pictures[image]).all() for image, pixels in held[number])
        image, *partners = map(int, rng.integers(len(sides), size=4))
        caches[number].begin_sample(image, is_partner=bool(rng.integers(2)))
        held[number] = [(each, caches[number].read(each)) for each in (image, *partners)]


def loader_of(split, workers=0, limit=64, window=8, per_batch_size=4, cache=True, **options):
    data = DataConfig(workers=workers, cache_limit_mb=limit, cache=cache)
    augment = AugmentConfig(partner_window=window, mixup=0.3, hsv_h=0)
    return Loader(split, data, augment, 96, per_batch_size, 7, **options)


def pixels(batches):
    return [batch.images.tobytes() + batch.labels.tobytes() for batch in batches]


def test_partners_from_a_window_give_the_same_batches_for_any_cache_and_workers(monkeypatch):
    split = RenderedSplit(images=30)
    with loader_of(split, cache=False) as plain:
        expected = [pixels(plain.epoch(epoch)) for epoch in range(2)]
        assert plain.note.endswith("; with data.cache and --set data.cache_limit_mb=2 it is one, for the same batches")
    with loader_of(split, window=0) as whole:
        assert pixels(whole.epoch(0)) != expected[0] and whole.note == ""
    monkeypatch.setattr("kubeyolo.data.batches.MEGABYTE", 300_000)
    for workers in (0, 3):
        with loader_of(split, workers, limit=1) as rolling:
            assert rolling._spec.cache.is_rolling and "each sample decodes one image" in rolling.note
            assert [pixels(rolling.epoch(epoch)) for epoch in range(2)] == expected
            # A resumed training fills the cache again.
            assert pixels(rolling.epoch(1, start_step=5)) == expected[1][5:]


class CountingSplit(RenderedSplit):
    """Counts the images that are decoded."""

    decoded = 0

    def read_image(self, i):
        self.decoded += 1
        return super().read_image(i)


def test_each_sample_decodes_one_image_where_four_were_decoded(monkeypatch):
    monkeypatch.setattr("kubeyolo.data.batches.MEGABYTE", 1_000)
    split = CountingSplit(images=100)
    counts = {}
    # Room for about 35 of the 100 images.
    for window in (0, 24):
        with loader_of(split, limit=600, window=window, per_batch_size=8) as loader:
            list(loader.epoch(0))
            before = split.decoded
            for epoch in range(1, 3):
                list(loader.epoch(epoch))
            counts[window] = (split.decoded - before) / (2 * 8 * loader.steps_per_epoch)
    # With mixup of 0.3 a sample has 1 + 3 + 0.3 * 4 images, of which some are not visible.
    assert counts[24] <= 1.0 < 2.5 < counts[0]


def test_each_image_is_a_partner_about_three_times_an_epoch_and_pairs_do_not_stick():
    # With a rotation, the plan names all images of a mosaic, also those that are not visible.
    augment, epochs = AugmentConfig(partner_window=64, degrees=1.0), 12
    with Loader(RenderedSplit(images=240), DataConfig(workers=0), augment, 64, 8, seed=5) as loader:
        maker, orders = loader._maker, [loader._spec.sampler.recent(epoch, 64).tolist() for epoch in range(epochs)]
    uses, pairs = np.zeros(240), Counter()
    for epoch, step, slot in np.ndindex(epochs, 30, 8):
        image, plan = maker.draw(epoch, step, slot)
        first, *partners = [placement.image for placement in plan.scene.placements]
        turn = 8 * step + slot
        assert first == image == orders[epoch][64 + turn] and set(partners) <= set(orders[epoch][turn : turn + 64])
        np.add.at(uses, partners, 1)
        pairs.update((first, partner) for partner in set(partners))
    assert uses.mean() / epochs == 3
    # Independent draws have the spread of a Poisson distribution with a mean of 36, which is 6.
    assert 4.5 < uses.std() < 7.5 and uses.min() > 15 and uses.max() < 60
    # A pair meets 36 / 239 = 0.15 times on average in these epochs.
    assert max(pairs.values()) <= 4 and len(pairs) > 0.12 * 240 * 239


@pytest.mark.parametrize("window", [5, 40])
def test_each_process_draws_from_the_images_that_it_decodes(window):
    ranks = [Sampler(images=50, per_batch_size=3, seed=1, rank=rank, world=2) for rank in range(2)]
    for sampler in ranks:
        own = [sampler.images_at(sampler.order(e), sampler.positions(s)) for e in range(3) for s in range(9)]
        own = np.concatenate([*[np.concatenate(own[:9])] * 2, *own])
        recent = np.concatenate([sampler.recent(epoch, window)[window:] for epoch in range(3)])
        assert recent.tolist() == own[54:].tolist()
        for epoch in range(3):
            start = 54 + 27 * epoch
            assert sampler.recent(epoch, window).tolist() == own[start - window : start + 27].tolist()


def test_the_window_follows_from_the_set_alone_unless_it_is_set():
    sizes = np.full((3000, 2), (640, 480))
    assert partner_window(AugmentConfig(), sizes, 8) == int(0.9 * 2**31 / (640 * 480 * 3)) == 2097
    assert partner_window(AugmentConfig(), sizes[:2330], 8) == 0
    assert partner_window(AugmentConfig(), sizes * 8, 64) == 512
    assert partner_window(AugmentConfig(partner_window=100), sizes, 8) == 100
    assert partner_window(AugmentConfig(partner_window=0), sizes, 8) == 0
    assert partner_window(AugmentConfig(mosaic=0), sizes, 8) == 0
