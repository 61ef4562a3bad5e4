"""The training program with a loss of the darknet family."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson

from kubeyolo.bundle import open_bundle
from kubeyolo.config.load import load_config
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.data.shards import write_dataset
from kubeyolo.launch.local import launch_work
from kubeyolo.storage.place import Place
from kubeyolo.training.spec import TrainingSpec

SETTINGS = {
    "data.workers": 1,
    "train.image_size": 96,
    "train.per_batch_size": 8,
    "train.max_epoch": 8,
    "train.log_interval": 5,
    "train.val_interval": 0,
    "train.ema_tau": 10,
    # So few steps show nothing at the published rate, and each image must be seen again as it was.
    "train.lr": 0.01,
    **dict.fromkeys(["augment.mosaic", "augment.scale", "augment.translate", "augment.hsv_h"], 0.0),
}


def test_training_of_yolov4_tiny_lowers_the_loss(tmp_path: Path) -> None:
    source = generate_sample_dataset(tmp_path / "source", train=40, val=4, image_size=(96, 96))
    dataset = write_dataset(source, Place.of(tmp_path / "store")).uri
    config = load_config("yolov4-tiny", sets=[f"{key}={value}" for key, value in SETTINGS.items()])
    assert (config.train.optimizer, config.train.lr_scheduler, config.train.box_gain) == ("sgd", "exponential", 10.0)
    output = tmp_path / "train"
    launch_work(TrainingSpec(dataset=dataset, output=str(output), config=config).work())
    rows = [orjson.loads(line) for line in (output / "history.jsonl").read_bytes().splitlines()]
    losses = {part: [row[part] for row in rows if row["kind"] == "train"] for part in ("loss", "box", "obj", "cls")}
    print({part: np.round(values, 3).tolist() for part, values in losses.items()})
    assert len(losses["loss"]) == 8
    assert np.isfinite(list(losses.values())).all()
    fallen = {part: np.mean(values[-2:]) / np.mean(values[:2]) for part, values in losses.items()}
    assert fallen["loss"] < 0.9 and fallen["box"] < 0.95 and fallen["obj"] < 0.8 and fallen["cls"] < 1
    assert open_bundle(Place.of(output / "bundle")).manifest.model == "yolov4-tiny"
