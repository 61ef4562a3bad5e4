"""Trains a small network with stored graphs: ``python -m tests.training.stored_graphs FOLDER OUTPUT SEED``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.runtime import configure_mindspore
from kubeyolo.training.accumulation import build_accumulation
from kubeyolo.training.freeze import freeze
from kubeyolo.training.schedules import build_schedule
from tests.training.mean_loss import mean_loss

STEPS = 5
LIMIT = 10**8

Arrays = dict[str, Any]


def engine_of(store: Any, nominal_batch: int, seed: int) -> Any:
    """Return two convolutions with batch normalization and a third without; the first two are frozen."""
    from mindspore import Tensor, nn

    from kubeyolo.training.engine import Engine

    cells: list[Any] = []
    for channels in (3, 4, 4):
        cells += [nn.Conv2d(channels, 4, 3, weight_init="zeros"), nn.BatchNorm2d(4, momentum=0.97)]
    network = nn.SequentialCell(*cells)
    rng = np.random.default_rng(seed)
    for parameter in network.get_parameters():
        parameter.set_data(Tensor(rng.uniform(0.5, 1.5, parameter.shape).astype(np.float32)))
    freeze(network, ["0.*", "1.*"])
    config = TrainConfig(lr=0.05, nominal_batch=nominal_batch, max_epoch=4, warmup_epochs=0, ema_tau=2.0)
    accumulation = build_accumulation(config, 2, 5)
    return Engine(network, mean_loss(), config, build_schedule(config, 5), accumulation=accumulation, store=store)


def trained(store: Any, nominal_batch: int, seed: int) -> Arrays:
    """Return all arrays of a training after some steps."""
    engine = engine_of(store, nominal_batch, seed)
    while engine.step < STEPS:
        rng = np.random.default_rng([7, engine.step])
        engine.train(rng.integers(0, 256, (2, 3, 8, 8), np.uint8), rng.random(2).astype(np.float32)).asnumpy()
    state = engine.capture({})
    parts = {part: getattr(state, part) for part in ("weights", "ema", "moments")}
    return {f"{nominal_batch} {part} {name}": array for part in parts for name, array in parts[part].items()}


def main(folder: Path, output: Path, seed: int) -> None:
    """Train with and without adding gradients, and write the arrays and the numbers of graphs."""
    configure_mindspore("CPU", 1)
    from kubeyolo.training.compile_cache import GraphStore

    lines: list[str] = []
    store = GraphStore(folder, {}, lines.append, LIMIT)
    arrays = trained(store, 0, seed) | trained(store, 6, seed)
    np.savez(output, **arrays, graphs=[store.compiled, store.loaded, len(lines)])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
