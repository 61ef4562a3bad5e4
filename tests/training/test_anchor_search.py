"""Anchors computed from boxes: how well they fit, for every family."""

from __future__ import annotations

import numpy as np
import pytest

from kubeyolo.config.anchor_forms import anchors_text
from kubeyolo.config.load import load_config
from kubeyolo.errors import InputError
from kubeyolo.models.anchors import trained_facts
from kubeyolo.models.named_facts import model_facts, model_names
from kubeyolo.training.anchor_search import FoundAnchors, find_anchors, fit_of
from tests.training.test_learnable import index_of, look

KINDS = ((4.0, 150.0), (400.0, 12.0), (3.0, 3.0), (9.0, 300.0), (350.0, 20.0))
"""Widths and heights that the models' own anchors do not fit at 640 pixels."""


def drawn(boxes: int = 600, kinds: tuple[tuple[float, float], ...] = KINDS, seed: int = 0) -> list[tuple[float, float]]:
    """Return sizes about those of the kinds, each side by up to a fifth longer or shorter."""
    random = np.random.default_rng(seed)
    sizes = np.array(kinds)[np.arange(boxes) % len(kinds)] * random.uniform(0.8, 1.2, (boxes, 2))
    return [(float(width), float(height)) for width, height in np.maximum(sizes, 2.1)]


def find(sides: list[tuple[float, float]], *sets: str, model: str = "yolov5n-r7") -> FoundAnchors:
    return find_anchors(index_of([sides]), load_config(model, sets=["train.image_size=640", *sets]))


def test_boxes_that_the_models_own_anchors_do_not_fit_are_fitted() -> None:
    found = find(drawn())
    assert found.boxes == 600 and found.left_out == 0 and found.warnings == ()
    assert found.own.recall < 0.5
    assert found.computed.recall >= 0.98 and found.computed.overlap > 0.75 > 0.5 > found.own.overlap
    assert not found.own_are_as_good and not found.own_are_enough


def test_the_computed_anchors_are_close_to_the_kinds_that_were_drawn() -> None:
    kinds = tuple((10.0 * 1.5**n, 8.0 * 1.6**n) for n in range(9))
    anchors = np.array(find(drawn(900, kinds)).computed.anchors).reshape(9, 2)
    np.testing.assert_allclose(anchors, kinds, rtol=0.15)


@pytest.mark.parametrize("model", model_names())
def test_every_model_trains_with_what_is_computed_for_it(model: str) -> None:
    found = find(drawn(300), model=model)
    own, text = model_facts(model), anchors_text(found.computed.anchors)
    facts = trained_facts(load_config(model, sets=[f"train.anchors={text}"]))
    assert facts.anchors == found.computed.anchors != own.anchors
    better = "overlap" if own.loss in ("yolov3", "yolov4") else "recall"
    assert getattr(found.computed, better) > getattr(found.own, better) + 0.2
    assert found.by_overlap == (better == "overlap")


def test_a_training_with_the_computed_anchors_does_not_warn() -> None:
    sides = drawn()
    assert "computes anchors that fit" in look(index_of([sides])).warnings[0]
    text = anchors_text(find(sides).computed.anchors)
    facts = trained_facts(config := load_config(sets=[f"train.anchors={text}"]))
    from kubeyolo.training.learnable import look_at_training

    quiet = look_at_training(index_of([sides]), facts, config, 1000)
    assert quiet.warnings == () and quiet.recall is not None and quiet.recall >= 0.98
    assert "boxes fit an anchor of train.anchors" in quiet.lines[0]


def test_the_same_seed_gives_the_same_anchors() -> None:
    sides = drawn(200)
    assert find(sides) == find(sides) == find(sides, "train.seed=0")
    assert find(sides, "train.seed=4294967295").computed.recall >= 0.98


def test_anchors_that_fit_as_well_are_kept() -> None:
    own = model_facts("yolov5n-r7").anchors
    found = find(drawn(900, tuple(pair for level in own for pair in level)))
    assert found.own.recall == 1.0 and found.own_are_as_good
    # All boxes are of one size, to which the computed anchors lie closer, and the model's own fit all the same.
    one = find([(90.0 + n % 50, 95.0 + n % 40) for n in range(200)])
    assert one.own.recall == 1.0 and not one.own_are_as_good and one.own_are_enough
    assert not find([(90.0 + n % 50, 95.0 + n % 40) for n in range(200)], model="yolov3").own_are_enough


def test_boxes_count_as_they_are_trained() -> None:
    sides = [*drawn(100), (1.0, 40.0), (500.0, 2.0), (3.0, 620.0)]
    found = find(sides)
    assert (found.boxes, found.left_out) == (100, 3)
    index = index_of([sides])
    index.box_crowd[:2] = True
    crowded = find_anchors(index, load_config(sets=["train.image_size=640"]))
    assert (crowded.boxes, crowded.left_out, crowded.crowds, found.crowds) == (98, 3, 2, 0)
    half = find_anchors(index_of([drawn(100, ((80.0, 80.0),))]), load_config(sets=["train.image_size=320"]))
    assert 30 < np.mean(half.computed.anchors) < 50


def test_anchors_that_are_set_are_compared_too() -> None:
    text = anchors_text(model_facts("yolov5n-r7").anchors)
    found = find(drawn(100), f"train.anchors={text}")
    assert found.given == found.own
    with pytest.raises(InputError, match="18 numbers"):
        find(drawn(100), "train.anchors=[3,4]")


def test_few_boxes_are_refused_or_warned_of() -> None:
    with pytest.raises(
        InputError, match=r"yolov5n-r7 has 9 anchors, but the number of training boxes at .* = 640 is 8: too few"
    ):
        find(drawn(8))
    with pytest.raises(InputError, match=r"is 0 \(1 more boxes, too small or too long, are left out"):
        find([(1.0, 1.0)])
    (warning,) = find(drawn(89)).warnings
    assert warning.startswith("there are 89 training boxes for 9 anchors, fewer than 10 for each")
    assert find(drawn(90)).warnings == ()
    (alike,) = find([(5.0, 120.0), (6.0, 130.0)] * 60).warnings
    assert "2 different sizes" in alike


def test_the_share_and_the_anchors_a_box_are_those_within_the_factor() -> None:
    sides = np.array([(10.0, 10.0), (35.0, 10.0), (50.0, 10.0)])
    fit = fit_of(sides, (((10.0, 10.0),), ((10.0, 40.0),)), 4.0)
    assert fit.recall == pytest.approx(2 / 3) and fit.per_box == pytest.approx(2 / 3)
    assert fit.overlap == pytest.approx((1 + 10 / 35 + 0.2) / 3)
