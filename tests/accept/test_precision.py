"""Half precision trains a detector as float32 does; `make accept` runs this long test."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kubeyolo.config.load import load_config
from kubeyolo.config.schema import Config
from kubeyolo.data.dataset import Dataset
from kubeyolo.data.loader import Loader
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.data.shards import write_dataset
from kubeyolo.models.named_facts import model_facts
from kubeyolo.runtime import configure_mindspore
from kubeyolo.storage.place import Place
from kubeyolo.training.schedules import build_schedule

IMAGES, BATCH, STEPS, LAST = 80, 4, 200, 40
"""Images of the data set and of a batch, steps of a training, and steps at its end whose losses are compared."""

SETTINGS = {
    "train.image_size": 128,
    "train.per_batch_size": BATCH,
    "train.nominal_batch": 0,
    "train.max_epoch": STEPS * BATCH // IMAGES,
    "train.optimizer": "adamw",
    "train.lr": 0.002,
    "train.lr_scheduler": "cosine_annealing",
    "train.warmup_bias_lr": 0.0,
    "train.weight_decay": 0.01,
    "train.ema_tau": 300.0,
    "data.workers": 0,
}
"""The settings of examples/demo.yaml at half its image size and batch, for 200 steps."""


def settings_for(precision: str) -> Config:
    """Return the configuration; the scale of float16 starts with its largest value."""
    values = {**SETTINGS, "train.precision": precision, "train.grad_scaler_value": 2.0**24}
    return load_config("yolov5n-r7", None, [f"{key}={value}" for key, value in values.items()])


def mean_loss(rows: np.ndarray) -> float:
    """Return the mean of the loss per image: the sum of its parts."""
    return float(rows[:, 1:4].sum(1).mean())


def losses_of(dataset: Dataset, config: Config, cast: Any) -> np.ndarray:
    """Train, and return the rows of losses of all steps; ``cast`` casts to half precision, None for float32."""
    from kubeyolo.losses.build import build_loss
    from kubeyolo.models.precision import use_half_precision
    from kubeyolo.models.registry import build_model
    from kubeyolo.training.engine import Engine

    train, classes = config.train, len(dataset.classes)
    split = dataset.split("train")
    network = build_model(config.model, classes, seed=train.seed)
    if cast is not None:
        print(use_half_precision(network, cast).words(train.compute_type), flush=True)
    criterion = build_loss(model_facts(config.model), classes, train.image_size)
    start, rows = time.process_time(), []
    with Loader(split, config.data, config.augment, train.image_size, train.per_batch_size, train.seed) as loader:
        engine = Engine(network, criterion, train, build_schedule(train, loader.steps_per_epoch))
        for epoch in range(train.max_epoch):
            rows += [engine.train(batch.images, batch.labels).asnumpy() for batch in loader.epoch(epoch)]
            loss = mean_loss(np.asarray(rows)[-loader.steps_per_epoch :])
            print(
                f"{train.compute_type}, step {len(rows)}: {loss:.4f}, {time.process_time() - start:.0f} s", flush=True
            )
    return np.asarray(rows)


@pytest.mark.timeout(4 * 3600)
def test_yolov5n_learns_in_half_precision(tmp_path: Path) -> None:
    """bfloat16 is computed by float32 operators with rounded values, because it has no kernels on a CPU."""
    configure_mindspore("CPU")
    from kubeyolo.models.precision import Cast
    from tests.training.rounding import Rounding

    source = generate_sample_dataset(tmp_path / "source", train=IMAGES, val=4)
    dataset = write_dataset(source, Place.of(tmp_path / "store"))
    full, half, rounded = (
        losses_of(dataset, settings_for(precision), cast)
        for precision, cast in (("float32", None), ("float16", Cast("float16")), ("bfloat16", Rounding()))
    )
    end = mean_loss(full[-LAST:])
    assert len(full) == STEPS and end < 0.92 * mean_loss(full[:LAST])
    assert half[-1][7] > 0, "the first scale is larger than any gradient allows"
    assert mean_loss(half[-LAST:]) == pytest.approx(end, rel=0.05)
    assert mean_loss(rounded[-LAST:]) == pytest.approx(end, rel=0.05)
