"""Small detectors of every family, trained by one process or by several: ``python -m tests.training.synchronized``."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from kubeyolo.arrays import AnyArray, Pixels
from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.launch import local
from kubeyolo.runtime import configure_mindspore
from kubeyolo.training.distribution import Distribution, join
from kubeyolo.training.process import run_process
from kubeyolo.work import Document, Work

FAMILIES = ("yolov3", "yolov4", "yolov4-csp", "yolov4-p5", "yolov5n-r7")
FROZEN = {"yolov5n-r7": ("stem.*",)}
"""Parameters that are frozen, by family."""

CLASSES, SIZE, BATCH, LABELS = 3, 64, 4, 24
MODULE = "tests.training.synchronized"

Arrays = dict[str, AnyArray]


class Job(Document):
    """Which detectors are trained.

    Attributes:
        families: Their names.
        steps: Number of steps.
        rate: Learning rate.
        output: Folder for the arrays of each process.
    """

    kind: ClassVar[str] = "the job of a test"

    families: tuple[str, ...]
    steps: int
    rate: float
    output: Path

    @property
    def memory_remedy(self) -> str:
        """See :class:`Document`."""
        return ""

    def work(self, processes: int) -> Work:
        """Return the job as the work of processes."""
        return Work(
            step="train",
            name="train",
            module=MODULE,
            document=self.model_dump_json(),
            output=str(self.output),
            processes=processes,
            memory_remedy=self.memory_remedy,
        )


def batch_of(step: int) -> tuple[Pixels, AnyArray]:
    """Return the images and labels of a step in all processes; the last image has few labels, the others have many."""
    rng = np.random.default_rng([3, step])
    images = rng.integers(0, 256, (BATCH, 3, SIZE, SIZE), np.uint8)
    images[1] //= 4  # The processes' own statistics differ.
    labels = np.full((LABELS, 6), -1, np.float32)
    owner = np.sort(rng.integers(0, BATCH - 1, LABELS - 2))
    sizes = rng.uniform(0.1, 0.7, (LABELS - 2, 2))
    centres = rng.uniform(0.2, 0.8, (LABELS - 2, 2))
    labels[: LABELS - 2] = np.concatenate(
        [owner[:, None], rng.integers(0, CLASSES, (LABELS - 2, 1)), centres, sizes], 1
    )
    labels[LABELS - 2] = [BATCH - 1, 0, 0.5, 0.5, 0.3, 0.3]
    return images, labels


def part_of(images: Pixels, labels: AnyArray, rank: int, world: int) -> tuple[Pixels, AnyArray]:
    """Return the share of a process; labels of other processes are unused rows."""
    size = BATCH // world
    first = rank * size
    image = labels[:, 0]
    own = labels - np.array([first, 0, 0, 0, 0, 0], np.float32)
    own[(image < first) | (image >= first + size)] = -1
    return images[first : first + size], own


def small_detector(name: str) -> Any:
    """Build a detector with two levels from the blocks of a family; its weights depend only on the names."""
    from mindspore import nn

    from kubeyolo.models.blocks import C3, Bottleneck, Conv, CspStage
    from kubeyolo.models.detector import AnchorHead
    from kubeyolo.models.initialisation import initialise_detector
    from kubeyolo.models.named_facts import model_facts
    from kubeyolo.models.scaledyolov4 import CspShortcuts

    facts = model_facts(name)
    facts = replace(facts, strides=(16, 32), anchors=facts.anchors[:2], scale_xy=facts.scale_xy[:2])
    eps = facts.bn_eps
    act: Any = {"yolov3": "leaky", "yolov5n-r7": "silu"}.get(name, "mish")
    block = {
        "yolov3": lambda: Bottleneck(8, True, 4, eps, "leaky"),
        "yolov4-p5": lambda: CspShortcuts(8, 1, eps),
        "yolov5n-r7": lambda: C3(8, 8, 1),
    }.get(name)

    class Network(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.facts, self.num_classes = facts, CLASSES
            self.stem = Conv(3, 8, 8, 8, 0, eps, act)
            down = Conv(8, 8, 3, 2, eps=eps, act=act)
            self.stage = nn.SequentialCell(down, block()) if block else CspStage(8, 8, 4, 4, 1, eps)
            self.last = Conv(8, 16, 3, 2, eps=eps, act=act)
            self.head = AnchorHead((8, 16), facts.anchors_per_level, CLASSES)

        def construct(self, x: Any) -> Any:
            middle = self.stage(self.stem(x))
            return self.head(middle, self.last(middle))

    network = Network()
    initialise_detector(network, 1)
    return network


def train(name: str, steps: int, rate: float, distribution: Distribution) -> Arrays:
    """Train a detector and return its arrays after the first and after the last step, and its losses."""
    from kubeyolo.losses.build import build_loss
    from kubeyolo.training.engine import Engine
    from kubeyolo.training.freeze import freeze
    from kubeyolo.training.optimizers import group_parameters
    from kubeyolo.training.schedules import build_schedule
    from kubeyolo.training.step import GradientSum
    from kubeyolo.training.sync_bn import synchronize

    world, network = distribution.world, small_detector(name)
    if name in FROZEN:
        freeze(network, FROZEN[name])
    note = synchronize(network, world)
    layers = sum("moving_mean" in parameter.name for parameter in network.get_parameters()) - (name in FROZEN)
    assert note.startswith(f"batch normalization: {layers} layers use") or world == 1, note
    # The divisor of yolov4 suits all darknet losses of so few images.
    scale = 64.0 if network.facts.loss in ("yolov3", "yolov4") else 0.0
    loss = build_loss(network.facts, CLASSES, SIZE, loss_scale=scale, processes=world, synchronized=True)
    config = TrainConfig(lr=rate, momentum=0.9, grad_clip=0, weight_decay=0.0005, warmup_epochs=0, max_epoch=100)
    shapes = [parameter.shape for parameter in group_parameters(network).all]
    reduce = GradientSum(shapes) if world > 1 else None
    engine = Engine(network, loss, config, build_schedule(config, 10), reduce)
    found: Arrays = {}
    losses = []
    for step in range(steps):
        losses.append(engine.train(*part_of(*batch_of(step), distribution.rank, world)).asnumpy())
        if step in (0, steps - 1):
            state = engine.capture({})
            when = "first" if step == 0 else "last"
            for part in ("weights", "ema", "moments"):
                found |= {f"{when} {part} {key}": array for key, array in getattr(state, part).items()}
    return found | {"losses": np.stack(losses)}


def check_two_processes(
    families: tuple[str, ...], steps: int, folder: Path, patch: pytest.MonkeyPatch, rate: float = 0.01
) -> None:
    """Compare two processes with one process that has the images of both.

    Args:
        families: The detectors to train.
        steps: Number of steps.
        folder: Folder for the arrays.
        patch: Lets the launcher start this module.
        rate: Learning rate.
    """
    job = Job(families=families, steps=steps, rate=rate, output=folder)
    root = str(Path(__file__).resolve().parents[2])
    patch.setenv("PYTHONPATH", os.pathsep.join((root, os.environ.get("PYTHONPATH", ""))))
    patch.setattr(local, "WORKER_MODULES", {MODULE})
    local.launch_work(job.work(2), print)
    for name in families:
        first, second = (dict(np.load(folder / f"{name}-2-{rank}.npz")) for rank in (0, 1))
        _compare(name, train(name, steps, rate, Distribution()), first, second)


def _compare(name: str, whole: Arrays, first: Arrays, second: Arrays) -> None:
    """Compare the arrays of one process with those of two."""
    assert whole.keys() == first.keys()
    errors: dict[str, float] = {}
    for key, array in whole.items():
        if key == "losses":
            assert not np.array_equal(first[key], second[key])
            # Totals of the processes add up to the total of all; parts are means.
            joined = (first[key] + second[key]) * np.array([1.0, 0.5, 0.5, 0.5, 0.5])
            errors["first losses"] = max(map(_error, array[0], joined[0]))
            errors["last losses"] = max(map(_error, array.ravel(), joined.ravel()))
            continue
        np.testing.assert_array_equal(first[key], second[key], err_msg=f"{name} {key}")
        errors[key] = _error(array, first[key])
    for when, most in (("first", 1e-5), ("last", 1e-4)):
        worst = max((key for key in errors if key.startswith(when)), key=errors.__getitem__)
        print(f"{name}: largest relative difference after the {when} step {errors[worst]:.1e}, of {worst}")
        assert errors[worst] < most, f"{name}: {worst} differs by {errors[worst]:.1e}"
    for pattern in FROZEN.get(name, ()):
        norm = pattern.replace("*", "bn.moving_mean")
        assert not whole[f"last weights {norm}"].any()
    assert whole["last weights last.bn.moving_mean"].any()


def _error(expected: Any, found: Any) -> float:
    """Return the largest difference, relative to the largest expected value."""
    return float(np.abs(expected - found).max() / max(np.abs(expected).max(), 1e-30))


def run(job: Job, distribution: Distribution) -> None:
    """Train all detectors of a job as one process, and store the arrays."""
    configure_mindspore("CPU", 1)
    if distribution.world > 1:
        join(distribution)
    for name in job.families:
        arrays = train(name, job.steps, job.rate, distribution)
        np.savez(job.output / f"{name}-{distribution.world}-{distribution.rank}.npz", **arrays)


if __name__ == "__main__":
    sys.exit(run_process(sys.argv[1:], "the job of a test", Job, run))
