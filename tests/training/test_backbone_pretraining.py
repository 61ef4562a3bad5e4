"""Pretraining, by the real training program: what it is trained on, and that it tells the classes apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from kubeyolo.bundle import WEIGHTS, BundleManifest, open_bundle
from kubeyolo.config.schema import Config
from kubeyolo.data.crops import background_squares, object_crops
from kubeyolo.data.dataset import open_dataset
from kubeyolo.errors import InputError
from kubeyolo.models.named_facts import model_facts
from kubeyolo.publishing import publish_bundle
from kubeyolo.storage.place import Place
from kubeyolo.training.detector import train_detector
from kubeyolo.training.distribution import Distribution
from kubeyolo.training.loop import StopRequest
from kubeyolo.training.spec import TrainingSpec
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


def test_the_backbone_of_another_model_is_refused(small_dataset: str, tmp_path: Path) -> None:
    """The backbones of yolov5s and yolov5s-r7 have parameters of the same names, but are different networks."""
    facts = model_facts("yolov5s")
    save_file({"backbone.stem.weight": np.zeros(1, np.float32)}, tmp_path / WEIGHTS)
    manifest = BundleManifest(
        kind="backbone",
        model="yolov5s",
        classes=("cat", "dog"),
        image_size=(96, 96),
        strides=facts.strides,
        anchors=facts.anchors,
    )
    bundle = publish_bundle(Place.of(tmp_path / "bundle"), manifest, {WEIGHTS: tmp_path / WEIGHTS})
    spec = TrainingSpec(
        dataset=small_dataset,
        output=str(tmp_path / "output"),
        config=Config.model_validate({"model": "yolov5s-r7"}),
        backbone=bundle.uri,
    )
    with pytest.raises(InputError, match=r"is a backbone of yolov5s, not a backbone of yolov5s-r7; pretrain one"):
        train_detector(spec, Distribution(), StopRequest())
