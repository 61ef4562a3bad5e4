from __future__ import annotations

import numpy as np
import pytest

from kubeyolo.data.sampler import NO_IMAGE, Sampler


def epoch_images(sampler, epoch):
    order = sampler.order(epoch)
    return [sampler.images_at(order, sampler.positions(step)) for step in range(sampler.steps_per_epoch)]


def test_an_epoch_holds_every_image_and_fills_the_last_batch_from_its_front():
    batches = epoch_images(Sampler(images=10, per_batch_size=4, seed=3), 0)
    seen = np.concatenate(batches)
    assert len(batches) == 3
    assert sorted(seen[:10]) == list(range(10))
    assert list(seen[10:]) == list(seen[:2])


def test_epochs_and_seeds_shuffle_differently_and_repeatably():
    orders = [tuple(Sampler(50, 4, seed).order(epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4
    assert tuple(Sampler(50, 8, 0, rank=1, world=2).order(0)) == orders[0]


@pytest.mark.parametrize("images", [1, 3, 16, 17, 40])
def test_ranks_share_each_global_batch(images):
    whole = epoch_images(Sampler(images, 8, 5), 2)
    ranks = [epoch_images(Sampler(images, 4, 5, rank=rank, world=2), 2) for rank in range(2)]
    assert [list(np.concatenate(parts)) for parts in zip(*ranks, strict=True)] == [list(batch) for batch in whole]


def test_fewer_images_than_a_batch_are_repeated():
    (batch,) = epoch_images(Sampler(3, 8, 0), 0)
    assert list(batch[:3]) == list(batch[3:6])
    assert sorted(batch[:3]) == [0, 1, 2]


def test_out_of_training_images_come_in_order_and_are_not_repeated():
    batches = epoch_images(Sampler(5, 4, 0, train=False), 7)
    assert [list(batch) for batch in batches] == [[0, 1, 2, 3], [4, NO_IMAGE, NO_IMAGE, NO_IMAGE]]


def test_random_numbers_depend_on_seed_epoch_and_position_alone():
    draws = {
        (seed, epoch, position): Sampler(9, 2, seed).generator(epoch, position).random()
        for seed in (0, 1)
        for epoch in (0, 1, 2)
        for position in (0, 1, 2)
    }
    assert len(set(draws.values())) == len(draws)
    assert Sampler(9, 1, 1, rank=2, world=3).generator(2, 1).random() == draws[1, 2, 1]


def test_impossible_slices_are_refused():
    with pytest.raises(ValueError, match="no batches"):
        Sampler(10, 4, 0, rank=2, world=2)
