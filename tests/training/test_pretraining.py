"""Pretraining, by the real training program: it is resumed, and a detector that starts from it is ahead."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import orjson
import pytest

from kubeyolo.bundle import open_bundle
from kubeyolo.config.schema import Config
from kubeyolo.data.dataset import open_dataset
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.data.shards import write_dataset
from kubeyolo.launch.local import launch_training
from kubeyolo.steps.evaluate import evaluate
from kubeyolo.steps.export import export_model
from kubeyolo.steps.quantize import quantize
from kubeyolo.steps.record import read_record
from kubeyolo.training.crops import background_squares, object_crops
from kubeyolo.training.spec import TrainingSpec
from tests.training.killing import has_checkpoint, history_of, launch_until, weights_of

CONFIG = {
    "model": "yolov5n-r7",
    "data": {"workers": 2},
    "augment": {"scale": 0.2},
    "pretrain": {"image_size": 64, "max_steps": 400},
    "train": {
        "image_size": 192,
        "per_batch_size": 8,
        "max_epoch": 10,
        "optimizer": "adamw",
        "lr": 0.002,
        "lr_scheduler": "cosine_annealing",
        "warmup_bias_lr": 0.0,
        "warmup_steps": 40,
        "ema_tau": 50,
        "val_interval": 10,
    },
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("pretraining")
    source = generate_sample_dataset(folder / "source", train=160, val=40, image_size=(192, 192))
    return write_dataset(source, str(folder / "store"))[1]


def last_validation(output: Path) -> dict[str, float]:
    rows = [orjson.loads(line) for line in (output / "history.jsonl").read_bytes().splitlines()]
    return next(row for row in reversed(rows) if row["kind"] == "val")


@pytest.fixture(scope="module")
def trainings(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pretrained backbone, and two detectors: one that started from it, and one from scratch."""
    folder, config = tmp_path_factory.mktemp("trainings"), Config.model_validate(CONFIG)
    launch_training(TrainingSpec(task="backbone", dataset=dataset, output=str(folder / "backbone"), config=config))
    for name, start in (("scratch", None), ("pretrained", str(folder / "backbone" / "bundle"))):
        launch_training(TrainingSpec(dataset=dataset, output=str(folder / name), config=config, backbone=start))
    return folder


def test_a_pretrained_detector_is_ahead_of_one_from_scratch(trainings: Path) -> None:
    # A quarter would be chance: three classes, and places without objects.
    assert open_bundle(str(trainings / "backbone" / "bundle")).manifest.metrics["pretrain"]["accuracy"] > 0.6
    found = {name: last_validation(trainings / name) for name in ("scratch", "pretrained")}
    assert found["pretrained"]["ap50"] > found["scratch"]["ap50"] + 0.1


def test_a_trained_detector_loses_nothing_in_onnx_and_little_in_int8(
    dataset: str, trainings: Path, tmp_path: Path
) -> None:
    bundle, config = str(trainings / "pretrained" / "bundle"), Config.model_validate(CONFIG)
    float_ap = evaluate(bundle, dataset, str(tmp_path / "evaluate"), config).result.numbers["AP"]
    exported = export_model(bundle, dataset, str(tmp_path / "export"), config)
    quantized = quantize(exported.bundle, dataset, str(tmp_path / "quantize"), config)
    assert float_ap is not None and float_ap > 0.1
    assert abs(read_record(exported.record).metrics["onnx"]["AP"] - float_ap) <= 0.001
    assert read_record(quantized.record).metrics["drop"] <= 1.0


def test_a_pretraining_that_was_killed_ends_with_the_same_weights(dataset: str, tmp_path: Path) -> None:
    small = CONFIG["pretrain"] | {"max_epoch": 3, "per_batch_size": 64, "image_size": 32}  # type: ignore[operator]
    config = Config.model_validate(CONFIG | {"pretrain": small})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    launch_until(TrainingSpec(task="backbone", dataset=dataset, output=str(whole), config=config))
    steps = int(history_of(whole)[-1]["step"])  # type: ignore[call-overload]
    spec = TrainingSpec(task="backbone", dataset=dataset, output=str(killed), config=config)
    launch_until(spec, has_checkpoint(steps // 3))
    lines = launch_until(spec)
    assert any(re.fullmatch(rf"resuming at step {steps // 3} of {steps}\b.*", line) for line in lines), lines
    assert weights_of(killed) == weights_of(whole)
    assert history_of(killed) == history_of(whole)


def test_places_without_objects_are_a_class_of_their_own(dataset: str) -> None:
    split = open_dataset(dataset).split("train")
    config = Config.model_validate(CONFIG).pretrain
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
