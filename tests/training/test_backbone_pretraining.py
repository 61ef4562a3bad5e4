"""Pretraining, by the real training program: what it is trained on, and that it tells the classes apart."""

from __future__ import annotations

import numpy as np

from kubeyolo.bundle import open_bundle
from kubeyolo.data.crops import background_squares, object_crops
from kubeyolo.data.dataset import open_dataset
from kubeyolo.storage.place import Place
from tests.training.pretraining import Trainings


def test_a_pretrained_backbone_tells_the_classes_apart(trainings: Trainings) -> None:
    # A quarter would be chance: three classes, and places without objects.
    assert open_bundle(Place.of(trainings.backbone() / "bundle")).manifest.metrics["pretrain"]["accuracy"] > 0.6


def test_places_without_objects_are_a_class_of_their_own(trainings: Trainings) -> None:
    split = open_dataset(Place.of(trainings.dataset)).split("train")
    config = trainings.config.pretrain
    crops = object_crops(split, 3, config, 100_000, seed=0)
    objects = np.minimum(split.index.box_xywh[:, 2], split.index.box_xywh[:, 3]) >= config.min_object_size
    objects &= ~split.index.box_crowd
    counts = np.bincount(crops.labels)
    assert counts[:3].tolist() == np.bincount(split.index.box_class[objects]).tolist()
    assert counts[3] == int(objects.sum() * config.background)
    assert len(object_crops(split, 3, config, 130, seed=0)) == 130
    owner, squares = background_squares(split.index, np.flatnonzero(objects), 50, np.random.default_rng(0))
    for image, (x, y, w, h) in zip(owner, squares, strict=True):
        assert 0 <= x <= split.index.width[image] - w and 0 <= y <= split.index.height[image] - h
        seen = np.zeros((int(split.index.height[image]), int(split.index.width[image])), bool)
        for left, top, width, height in split.index.box_xywh[split.index.boxes_of(image)].astype(int):
            seen[top : top + height, left : left + width] = True
        assert seen[round(y) : round(y + h), round(x) : round(x + w)].mean() <= 0.15
