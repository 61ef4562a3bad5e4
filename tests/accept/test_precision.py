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

IMAGES, STEPS, LAST = 64, 200, 40
"""Images of the data set, steps of a training, and steps at its end whose losses are compared."""

SETTINGS = {
    "train.image_size": 128,
    "train.per_batch_size": 8,
    "train.nominal_batch": 0,
    "train.max_epoch": STEPS * 8 // IMAGES,
    "train.optimizer": "adamw",
    "train.lr": 0.002,
    "train.lr_scheduler": "cosine_annealing",
    "train.warmup_bias_lr": 0.0,
    "train.weight_decay": 0.01,
    "train.ema_tau": 300.0,
    "data.workers": 0,
}
"""The settings of examples/demo.yaml at half its image size, for 200 steps."""


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
    loss = build_loss(model_facts(config.model), classes, train.image_size)
    start, rows = time.monotonic(), []
    with Loader(split, config.data, config.augment, train.image_size, train.per_batch_size, train.seed) as loader:
        engine = Engine(network, loss, train, build_schedule(train, loader.steps_per_epoch))
        for epoch in range(train.max_epoch):
            rows += [engine.train(batch.images, batch.labels).asnumpy() for batch in loader.epoch(epoch)]
            mean = np.asarray(rows)[-loader.steps_per_epoch :].mean(0)
            print(f"{train.compute_type} step {len(rows)}: {mean}, {time.monotonic() - start:.0f} s", flush=True)
    return np.asarray(rows)


@pytest.mark.timeout(4 * 3600)
def test_yolov5n_learns_in_half_precision(tmp_path: Path) -> None:
    """bfloat16 is computed by float32 operators with rounded values, because it has no kernels on a CPU."""
    configure_mindspore("CPU")
    from kubeyolo.models.precision import Cast
    from tests.training.rounding import Rounding

    source = generate_sample_dataset(tmp_path / "source", train=IMAGES, val=4)
    dataset = write_dataset(source, Place.of(tmp_path / "store"))
    ends, skipped = {}, {}
    for precision, cast in (("float32", None), ("float16", Cast("float16")), ("bfloat16", Rounding())):
        values = [f"{key}={value}" for key, value in {**SETTINGS, "train.precision": precision}.items()]
        if precision == "float16":
            # Larger than any gradient allows.
            values.append(f"train.grad_scaler_value={2**24}")
        rows = losses_of(dataset, load_config("yolov5n-r7", None, values), cast)
        assert len(rows) == STEPS
        ends[precision] = float(rows[-LAST:, 1:4].sum(1).mean())
        skipped[precision] = rows[-1][7] if precision == "float16" else 0
    print(ends, skipped, flush=True)
    assert ends["float32"] < 0.8 * float(rows[:LAST, 1:4].sum(1).mean())
    assert skipped["float16"] > 0
    for precision in ("float16", "bfloat16"):
        assert ends[precision] == pytest.approx(ends["float32"], rel=0.05)
