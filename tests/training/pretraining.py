"""A pretrained backbone, and detectors that start from it and from scratch: each is trained once for all tests."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from kubeyolo.config.schema import Config
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.data.shards import write_dataset
from kubeyolo.launch.local import launch_work
from kubeyolo.storage.place import Place
from kubeyolo.training.result import RESULT_NAME
from kubeyolo.training.spec import TrainingSpec

CONFIG = {
    "model": "yolov5n-r7",
    "data": {"workers": 2},
    "augment": {"scale": 0.2},
    "pretrain": {"image_size": 64, "max_steps": 250},
    "train": {
        "image_size": 160,
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


class Trainings:
    """The data set and the trainings; the first test that asks for one of them makes it, others wait for it."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        base = factory.getbasetemp()
        self._folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "pretraining"
        self._folder.mkdir(exist_ok=True)
        self.config = Config.model_validate(CONFIG)

    @property
    def dataset(self) -> str:
        """URI of the manifest of the data set."""
        with (self._folder / "dataset.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            uri = self._folder / "dataset.uri"
            if not uri.exists():
                source = generate_sample_dataset(self._folder / "source", train=160, val=40, image_size=(192, 192))
                uri.write_text(write_dataset(source, Place.of(self._folder / "store")).uri)
            return uri.read_text()

    def backbone(self) -> Path:
        """Return the output of the pretraining."""
        return self._trained("backbone", TrainingSpec(task="backbone", **self._common("backbone")))

    def detector(self, name: str) -> Path:
        """Return the output of the training of a detector, `pretrained` or from `scratch`."""
        start = str(self.backbone() / "bundle") if name == "pretrained" else None
        return self._trained(name, TrainingSpec(backbone=start, **self._common(name)))

    def _common(self, name: str) -> dict[str, object]:
        return {"dataset": self.dataset, "output": str(self._folder / name), "config": self.config}

    def _trained(self, name: str, spec: TrainingSpec) -> Path:
        output = self._folder / name
        with (self._folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (output / RESULT_NAME).exists():
                launch_work(spec.work())
        return output


def train_losses(output: Path) -> list[float]:
    """Return the losses of a training, in the order of its log lines."""
    return [row["loss"] for row in _rows(output) if row["kind"] == "train"]


def last_validation(output: Path) -> dict[str, float]:
    """Return the numbers of the last validation of a training."""
    return next(row for row in reversed(_rows(output)) if row["kind"] == "val")


def _rows(output: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (output / "history.jsonl").read_bytes().splitlines()]
