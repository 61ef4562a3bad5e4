"""Compare the speed of a training with that of its bare network: ``python -m benchmarks.train_step``.

It measures a and b in one process, in alternating turns, and prints medians over the turns:

a. the whole training program: loader with mosaic and worker processes, loss, optimizer, EMA, log;
b. the same network and optimizer with a trivial loss, the sum of the outputs, on one fixed batch, without EMA;
c. images per second of a, divided by images per second of b.

It also prints the share of a step that is spent inside oneDNN, from its verbose log in a separate process.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kubeyolo.config.load import load_config
from kubeyolo.config.schema import Config
from kubeyolo.data.loader import Loader
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.data.shards import write_dataset
from kubeyolo.models.named_facts import model_facts
from kubeyolo.models.registry import build_model
from kubeyolo.runtime import configure_mindspore
from kubeyolo.storage.place import Place
from kubeyolo.training.distribution import threads_for

BOUND = 0.88
EXEC = re.compile(r"^(?:dnnl|onednn)_verbose,(?:v1,)?(?:primitive,)?exec,.*,([0-9.]+)\s*$")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="yolov5n-r7")
    parser.add_argument("--size", type=int, default=320, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10, help="steps of one turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of a and b each")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the loader")
    parser.add_argument("--check", action="store_true", help=f"fail when c is below {BOUND}")
    parser.add_argument("--verbose-run", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    train = f"train.image_size={options.size} train.per_batch_size={options.batch} train.max_epoch=1000"
    config = load_config(options.model, sets=[*train.split(), f"data.workers={options.workers}"])
    if options.verbose_run:
        return verbose_run(config, options.steps)
    ratio = measure(config, options.steps, options.rounds)
    measure_onednn(options)
    return 1 if options.check and ratio < BOUND else 0


def measure(config: Config, steps: int, rounds: int) -> float:
    """Print a, b and c, and return c."""
    with training(config) as program, trivial(config) as bound:
        for run in (program, bound):
            run.turn(3)
        times: dict[str, list[float]] = {"a": [], "b": []}
        for _ in range(rounds):
            times["a"].append(program.turn(steps))
            times["b"].append(bound.turn(steps))
    batch = config.train.per_batch_size
    a, b = statistics.median(times["a"]), statistics.median(times["b"])
    # Ratios of adjacent turns, so that a temporary slowdown of the machine affects both.
    ratios = [bound / program for program, bound in zip(times["a"], times["b"], strict=True)]
    ratio = statistics.median(ratios)
    print(
        f"{config.model}, {config.train.image_size} px, batch {batch}, {threads_for(1)} cores, {rounds} x {steps} steps"
    )
    print(f"a  training program          {a * 1e3:8.1f} ms a step  {batch / a:6.2f} images/s")
    print(f"b  network and trivial loss  {b * 1e3:8.1f} ms a step  {batch / b:6.2f} images/s")
    print(f"c  a over b                  {ratio:8.3f}  ({min(ratios):.3f} to {max(ratios):.3f}; --check: {BOUND})")
    return ratio


class Turns:
    """A training that is measured in turns of a few steps."""

    def __init__(self, engine: Any, batches: Iterator[Any], resources: list[Any], log_interval: int = 20) -> None:
        self._engine, self._batches, self._resources = engine, batches, resources
        self._log_interval = log_interval

    def turn(self, steps: int) -> float:
        """Train some steps, wait for the loss of the last step, and return the seconds of one step."""
        start = time.perf_counter()
        for _ in range(steps):
            batch = next(self._batches)
            losses = self._engine.train(batch.images, batch.labels)
            if self._engine.step % self._log_interval == 0:
                print(f"iter[{self._engine.step}], loss:{losses.asnumpy()[0]:.4f}", file=sys.stderr)
        losses.asnumpy()
        return (time.perf_counter() - start) / steps

    def __enter__(self) -> Turns:
        return self

    def __exit__(self, *unused: object) -> None:
        for resource in reversed(self._resources):
            resource.__exit__(None, None, None)


def training(config: Config) -> Turns:
    """Return the whole training program, as a training process runs it."""
    folder = tempfile.TemporaryDirectory(prefix="kubeyolo-bench-")
    source = generate_sample_dataset(Path(folder.name) / "source", train=64, val=1)
    dataset, train = write_dataset(source, Place.of(Path(folder.name) / "store")), config.train
    loader = Loader(
        dataset.split("train"), config.data, config.augment, train.image_size, train.per_batch_size, train.seed
    )
    configure_mindspore(train.device_target, threads_for(1))
    from kubeyolo.losses.build import build_loss

    loss = build_loss(model_facts(config.model), len(dataset.classes), train.image_size)
    engine = build_engine(config, loss, len(dataset.classes), loader.steps_per_epoch, average=True)
    batches = (batch for epoch in range(train.max_epoch) for batch in loader.epoch(epoch))
    return Turns(engine, batches, [folder, loader], train.log_interval)


def trivial(config: Config) -> Turns:
    """Return the same network and optimizer with the sum of the outputs as loss, on one fixed batch."""
    import numpy as np
    from mindspore import Tensor, nn, ops

    class Sum(nn.Cell):
        def construct(self, raws: tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, Tensor]:
            total = (raws[0].sum() + raws[1].sum() + raws[2].sum()) * 1e-6
            return total, ops.stack((total, total, total))

    class Fixed:
        size = config.train.image_size
        images = np.random.default_rng(0).integers(0, 256, (config.train.per_batch_size, 3, size, size), np.uint8)
        labels = np.full((64, 6), -1, np.float32)

    engine = build_engine(config, Sum(), 3, 8, average=False)
    return Turns(engine, iter(lambda: Fixed, None), [])


def build_engine(config: Config, loss: Any, num_classes: int, steps_per_epoch: int, average: bool) -> Any:
    from kubeyolo.training.engine import Engine
    from kubeyolo.training.schedules import build_schedule

    network = build_model(config.model, num_classes, seed=config.train.seed)
    return Engine(network, loss, config.train, build_schedule(config.train, steps_per_epoch), average=average)


def verbose_run(config: Config, steps: int) -> int:
    """Train a few steps and print the seconds of one step, without the first step, which compiles."""
    with training(config) as program:
        program.turn(1)
        print("steps begin", flush=True)
        print(f"seconds {program.turn(steps)}", flush=True)
    return 0


def measure_onednn(options: argparse.Namespace) -> None:
    """Print the share of oneDNN in a step, measured in a process with its verbose log."""
    command = [sys.executable, __file__, "--verbose-run", "--model", options.model, "--size", str(options.size)]
    command += ["--batch", str(options.batch), "--steps", str(options.steps), "--workers", str(options.workers)]
    environment = os.environ | {"ONEDNN_VERBOSE": "1", "DNNL_VERBOSE": "1", "PYTHONUNBUFFERED": "1"}
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    lines = output.partition("steps begin")[2].splitlines()
    spent = sum(float(match[1]) for match in map(EXEC.match, lines) if match) / 1e3
    step = next(float(line.split()[1]) for line in lines if line.startswith("seconds "))
    share = spent / options.steps / step
    print(f"oneDNN                       {share:8.1%}  of {step * 1e3:.1f} ms a step, with its verbose log")


if __name__ == "__main__":
    sys.exit(main())
