"""Samples whose settings an earlier version had too are drawn and painted as by that version, bit for bit."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from kubeyolo.config.training_schema import AugmentConfig
from kubeyolo.data.augment import Augmenter
from kubeyolo.data.labels import BoxTable
from kubeyolo.data.sampler import Sampler
from tests.data.rendered_split import RenderedSplit
from tests.data.test_augment import letterbox_tile

SIZE = 96


def digests(config):
    """Return the digests of the plans, labels and pixels of 40 samples; every fifth sample is without mosaic."""
    split = RenderedSplit(images=10, most_boxes=8)
    augmenter = Augmenter(config, BoxTable(split.index), split.index.width, split.index.height, SIZE)
    plans, labels, pixels = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    out = np.empty((3, SIZE, SIZE), np.uint8)
    for position in range(40):
        rng = Sampler(10, 4, 7).generator(1, position)
        plan = augmenter.draw(rng, position % 10, mosaic=position % 5 > 0)
        scenes = [
            [(p.placement.image, p.source, p.target) for p in scene] for scene in (plan.scene, plan.blended or ())
        ]
        factors = [f"{factor:.9f}" for factor in plan.hsv or ()]
        # The next random number tells how many numbers were drawn.
        drawn = scenes, f"{plan.blend:.9f}", factors, plan.fliplr, plan.flipud, int(rng.integers(1 << 30))
        plans.update(repr(drawn).encode())
        labels.update(augmenter.labels(plan).tobytes())
        augmenter.paint(plan, lambda image: letterbox_tile(split, augmenter, image), out)
        pixels.update(out.tobytes())
    return [each.hexdigest()[:16] for each in (plans, labels, pixels)]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0, "flipud": 0.3},
            ["c68844df61c67be1", "5055057adb5df3c4", "13cf70f27641c640"],
        ),
        ({"mosaic": 0.5, "mixup": 0.4}, ["d1745b23e1510e14", "2dcb623e07244fef"]),
        ({"mosaic": 0.0, "mixup": 0.3, "scale": 0.9, "translate": 0.5}, ["6d97fc32f6111e57", "a4e6e70eb97d1f65"]),
    ],
)
def test_settings_that_earlier_versions_had_give_the_same_samples(changes, expected):
    # Colours and blends are computed in floating point, which differs between processors in the last bit.
    found = digests(AugmentConfig(**changes))
    assert found[: len(expected)] == expected, found
