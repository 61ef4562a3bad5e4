from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubeyolo.data.sampler import Sampler


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
    with pytest.raises(
        ValueError, match=r"cannot make batches with Sampler\(images=10, per_batch_size=4, seed=0, rank=2, world=2"
    ):
        Sampler(10, 4, 0, rank=2, world=2)


samplers = st.builds(
    dict,
    images=st.integers(1, 120),
    per_batch_size=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
    world=st.integers(1, 6),
)
epochs = st.integers(0, 1000)


def epoch_of_ranks(facts, epoch, start=0, **options):
    """Return the images of an epoch from a step on, (step, rank, position in the batch), by samplers made anew."""
    ranks = [Sampler(**facts, rank=rank, **options) for rank in range(facts["world"])]
    steps = range(start, ranks[0].steps_per_epoch)
    return [[each.images_at(each.order(epoch), each.positions(step)).tolist() for each in ranks] for step in steps]


@given(facts=samplers, epoch=epochs)
@settings(max_examples=60)
def test_processes_share_an_epoch_without_a_gap_or_an_overlap(facts, epoch):
    ranks = [Sampler(**facts, rank=rank) for rank in range(facts["world"])]
    steps, images = ranks[0].steps_per_epoch, facts["images"]
    positions = np.concatenate([each.positions(step) for step in range(steps) for each in ranks])
    whole = facts["world"] * facts["per_batch_size"]
    assert positions.tolist() == list(range(steps * whole)) and (steps - 1) * whole < images <= steps * whole
    seen = np.ravel(epoch_of_ranks(facts, epoch))
    assert sorted(seen[:images]) == list(range(images))
    assert seen[images:].tolist() == np.resize(seen[:images], len(seen) - images).tolist()


@given(facts=samplers, epoch=epochs, share=st.floats(0, 1))
@settings(max_examples=60)
def test_an_epoch_that_is_entered_at_any_step_goes_on_as_the_whole_one(facts, epoch, share):
    whole = epoch_of_ranks(facts, epoch)
    start = round(share * len(whole))
    assert epoch_of_ranks(facts, epoch, start) == whole[start:]


@given(facts=samplers, epoch=epochs, other=st.tuples(st.integers(1, 12), st.integers(1, 6)))
@settings(max_examples=60)
def test_the_order_depends_on_seed_and_epoch_alone(facts, epoch, other):
    order = Sampler(**facts).order(epoch).tolist()
    per_batch_size, world = other
    elsewhere = Sampler(facts["images"], per_batch_size, facts["seed"], rank=world - 1, world=world)
    assert elsewhere.order(epoch).tolist() == order
    if facts["images"] > 30:
        assert Sampler(**facts).order(epoch + 1).tolist() != order
        assert Sampler(**facts | {"seed": facts["seed"] + 1}).order(epoch).tolist() != order


@given(facts=samplers, epoch=epochs)
@settings(max_examples=40)
def test_every_sample_of_an_epoch_has_random_numbers_of_its_own(facts, epoch):
    ranks = [Sampler(**facts, rank=rank) for rank in range(facts["world"])]
    positions = [p for each in ranks for step in range(each.steps_per_epoch) for p in each.positions(step).tolist()]
    draws = [ranks[-1].generator(epoch, position).bit_generator.random_raw() for position in positions]
    assert len(set(draws)) == len(draws) == ranks[0].steps_per_epoch * facts["world"] * facts["per_batch_size"]
    assert draws == [ranks[0].generator(epoch, position).bit_generator.random_raw() for position in positions]
