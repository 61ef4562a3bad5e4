"""Compare the speed of an evaluation with that of its bare network: ``python -m benchmarks.evaluation``.

It measures a and b in one process, in alternating turns, and prints medians over the turns:

a. the whole evaluation of generated images: reading, decoding and letterboxing images, the network, decoding its
   outputs, non-maximum suppression, and the COCO metrics;
b. the same network on one batch, as often as there are batches;
c. images per second of a, divided by images per second of b;
d. processor time of b, divided by processor time of a: what c comes to on a machine with other load.

The network has random weights: its outputs are replaced by outputs like those of a trained network, so that as many
boxes are suppressed and rated as in the evaluation of a trained detector.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.predictions import CLASSES, KINDS, SIDE, STRIDES
from kubeyolo.arrays import Float32Array
from kubeyolo.bundle import BundleManifest
from kubeyolo.config.schema import EvaluateConfig
from kubeyolo.data.dataset import Split
from kubeyolo.data.manifest import DatasetManifest
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.data.shards import write_dataset
from kubeyolo.evaluation.predictor import Predictor
from kubeyolo.evaluation.runtimes import CellRuntime, Runtime
from kubeyolo.evaluation.split_evaluation import evaluate_split
from kubeyolo.models.named_facts import model_facts
from kubeyolo.models.registry import build_model
from kubeyolo.runtime import configure_mindspore
from kubeyolo.storage.place import Place
from kubeyolo.training.distribution import threads_for

BOUND = 0.8
DIFFERENT = 16
"""Different outputs of an image."""


class Seconds(NamedTuple):
    """Clock and processor seconds of an image."""

    clock: float
    processor: float


class ReplacedOutputs(Runtime):
    """Runs a network, and returns outputs like those of a trained network."""

    def __init__(self, network: CellRuntime, model: str) -> None:
        rng = np.random.default_rng(0)
        anchors = model_facts(model).anchors
        self._network = network
        self._outputs = [raw_outputs(KINDS["trained"](rng), anchors) for _ in range(DIFFERENT)]
        self._images = 0

    def raw(self, images: Float32Array) -> list[Float32Array]:
        """Run the network, and return the next outputs."""
        self._network.raw(images)
        numbers = [number % DIFFERENT for number in range(self._images, self._images + len(images))]
        self._images += len(images)
        return [np.stack([self._outputs[number][level] for number in numbers]) for level in range(len(STRIDES))]


def raw_outputs(predictions: Float32Array, anchors: tuple[tuple[tuple[float, float], ...], ...]) -> list[Float32Array]:
    """Return raw levels (3, ny, nx, 5 + classes) that YOLOv5 decodes to predictions, or to boxes near them."""
    levels, start = [], 0
    for stride, sides in zip(STRIDES, anchors, strict=True):
        cells = SIDE // stride
        shape = (3, cells, cells)
        level = predictions[start : start + 3 * cells * cells].reshape(*shape, -1).copy()
        start += 3 * cells * cells
        grid = np.stack(np.meshgrid(np.arange(cells), np.arange(cells)), axis=-1)
        level[..., :2] = (level[..., :2] / stride - grid + 0.5) / 2
        level[..., 2:4] = np.sqrt(level[..., 2:4] / np.array(sides, np.float32)[:, None, None]) / 2
        level[..., :4] = np.clip(level[..., :4], 0.05, 0.95)
        levels.append(np.log(level / (1 - np.minimum(level, 0.999999)) + 1e-12).astype(np.float32))
    return levels


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="yolov5n-r7")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="turns of a and b each")
    parser.add_argument("--check", action="store_true", help=f"fail when c is below {BOUND}")
    options = parser.parse_args()
    configure_mindspore(threads=threads_for(1))
    facts = model_facts(options.model)
    bundle = BundleManifest(
        model=options.model,
        classes=tuple(f"class {number}" for number in range(CLASSES)),
        category_ids=tuple(range(1, CLASSES + 1)),
        image_size=(SIDE, SIDE),
        strides=facts.strides,
        anchors=facts.anchors,
    )
    network = build_model(options.model, CLASSES)
    network.set_train(False)
    bare = CellRuntime(network)
    predictor = Predictor(bundle, ReplacedOutputs(bare, options.model), batch_size=options.batch)
    with tempfile.TemporaryDirectory(prefix="kubeyolo-bench-") as name:
        source = generate_sample_dataset(Path(name) / "source", train=1, val=options.images, image_size=(640, 480))
        dataset = write_dataset(source, Place.of(Path(name) / "store"))
        # The classes of the model; the boxes of the generated images have the first of them.
        manifest = dataset.manifest.model_copy(
            update={"classes": bundle.classes, "category_ids": bundle.category_ids, "category_keys": None}
        )
        batch = np.zeros((options.batch, 3, SIDE, SIDE), np.float32)
        bare.raw(batch)
        times: dict[str, list[Seconds]] = {"a": [], "b": []}
        for _ in range(options.rounds):
            times["a"].append(evaluation(predictor, dataset.split("val"), manifest))
            times["b"].append(network_alone(bare, batch, options.images))
    return report(times, options)


def evaluation(predictor: Predictor, split: Split, manifest: DatasetManifest) -> Seconds:
    """Evaluate a split, and return the seconds of an image."""
    start, before = time.perf_counter(), time.process_time()
    result, _ = evaluate_split(predictor, split, manifest, EvaluateConfig(), progress=False)
    assert result.images == len(split)
    return Seconds((time.perf_counter() - start) / len(split), (time.process_time() - before) / len(split))


def network_alone(runtime: Runtime, batch: Float32Array, images: int) -> Seconds:
    """Run the network for a number of images, and return the seconds of an image."""
    turns = -(-images // len(batch))
    start, before = time.perf_counter(), time.process_time()
    for _ in range(turns):
        runtime.raw(batch)
    count = turns * len(batch)
    return Seconds((time.perf_counter() - start) / count, (time.process_time() - before) / count)


def report(times: dict[str, list[Seconds]], options: argparse.Namespace) -> int:
    a, b = (statistics.median(each.clock for each in times[name]) for name in "ab")
    # Ratios of adjacent turns, so that a temporary slowdown of the machine affects both.
    turns = list(zip(times["a"], times["b"], strict=True))
    ratios = [bare.clock / whole.clock for whole, bare in turns]
    ratio, shares = statistics.median(ratios), [bare.processor / whole.processor for whole, bare in turns]
    print(f"{options.model}, {SIDE} px, batch {options.batch}, {threads_for(1)} cores, {options.images} images")
    print(f"a  evaluation   {a * 1e3:8.1f} ms an image  {1 / a:6.2f} images/s")
    print(f"b  network      {b * 1e3:8.1f} ms an image  {1 / b:6.2f} images/s")
    print(f"c  a over b     {ratio:8.3f}  ({min(ratios):.3f} to {max(ratios):.3f}; --check: {BOUND})")
    print(f"d  processor    {statistics.median(shares):8.3f}  ({min(shares):.3f} to {max(shares):.3f})")
    return 1 if options.check and ratio < BOUND else 0


if __name__ == "__main__":
    sys.exit(main())
