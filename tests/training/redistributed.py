"""A training of a small network with the real loader and loop, as one process or as one of several of msrun.

The worker reads a document with ``dataset``, ``output``, ``steps`` (at which it stops) and ``delay``: seconds by which
each batch of rank 1 is late.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kubeyolo.config.load import load_config
from kubeyolo.data.batches import Batch
from kubeyolo.data.dataset import open_dataset
from kubeyolo.data.loader import Loader
from kubeyolo.runtime import configure_mindspore
from kubeyolo.storage.place import Place
from kubeyolo.training.checkpoints import newest_checkpoint
from kubeyolo.training.detector import gather_function
from kubeyolo.training.distribution import Distribution, distribution_from_environment, is_scheduler, join
from kubeyolo.training.loop import Hooks, TrainingLoop
from kubeyolo.training.loop_parts import LoopSettings, Output
from kubeyolo.training.schedules import build_schedule
from kubeyolo.work import OUTCOME_FOLDER

IMAGES_OF_STEP, MODULE = 4, "tests.training.redistributed"


class LateBatches:
    """Batches of the loader with a label for each image, and a note of the images; they may come late."""

    def __init__(self, loader: Loader, note: Path, delay: float) -> None:
        self._loader, self._note, self._delay = loader, note, delay

    @property
    def steps_per_epoch(self) -> int:
        return self._loader.steps_per_epoch

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        for batch in self._loader.epoch(epoch, start_step):
            time.sleep(self._delay)
            with self._note.open("a") as file:
                file.write(json.dumps(batch.indices.tolist()) + "\n")
            labels = batch.images.mean((1, 2, 3)).astype(np.float32) / 255
            yield Batch(batch.images, labels, batch.indices)


def train(document: dict[str, Any], distribution: Distribution) -> None:
    """Train to a number of steps, from the newest checkpoint in the output if there is one."""
    from mindspore import Tensor, nn

    from kubeyolo.training.engine import Engine
    from kubeyolo.training.optimizers import group_parameters
    from kubeyolo.training.step import GradientSum
    from tests.training.mean_loss import mean_loss

    rank, world = distribution.rank, distribution.world
    sets = ["data.workers=0", "train.lr=0.05", "train.nominal_batch=0", "train.warmup_epochs=0", "train.image_size=64"]
    config = load_config("yolov5n-r7", sets=[*sets, f"train.per_batch_size={IMAGES_OF_STEP // world}"])
    train, output = config.train, Place.of(document["output"])
    # Without batch normalization, whose statistics are those of a process.
    network = nn.SequentialCell(nn.Conv2d(3, 4, 3, has_bias=True), nn.Conv2d(4, 2, 1))
    rng = np.random.default_rng(0)
    for parameter in network.trainable_params():
        parameter.set_data(Tensor(rng.normal(0, 0.3, parameter.shape).astype(np.float32)))
    split = open_dataset(Place.of(document["dataset"])).split("train")
    note = Path(document["output"], f"images-{world}-{rank}.jsonl")
    reduce = GradientSum([each.shape for each in group_parameters(network).all]) if world > 1 else None
    with Loader(split, config.data, config.augment, 64, train.per_batch_size, 0, rank, world) as loader:
        batches = LateBatches(loader, note, document["delay"] if rank == 1 else 0.0)
        schedule = build_schedule(train, batches.steps_per_epoch)
        engine = Engine(network, mean_loss(), train, schedule, reduce)
        settings = LoopSettings(total_steps=document["steps"], images_per_step=IMAGES_OF_STEP, log_interval=2)
        gather = gather_function(world) if world > 1 else None
        hooks = Hooks(show=lambda line: print(line, flush=True), synchronize=distribution.synchronize, gather=gather)
        place = Output(output, {"train": "redistributed"}, is_written=distribution.is_first)
        TrainingLoop(engine, batches, settings, place, hooks).run(newest_checkpoint(output.store, print))


def main() -> None:
    """Run a process of msrun."""
    configure_mindspore("CPU", 1)
    distribution = distribution_from_environment()
    join(distribution)
    if is_scheduler():
        return
    train(json.loads(Path(sys.argv[1]).read_text()), distribution)
    outcome = {"rank": distribution.rank, "exit_code": 0, "message": ""}
    Path(os.environ[OUTCOME_FOLDER], f"rank-{distribution.rank}.json").write_text(json.dumps(outcome))


if __name__ == "__main__":
    main()
