"""Compare the speed of `kubeyolo predict` with that of its bare network: ``python -m benchmarks.prediction``.

It measures a and b in one process, in alternating turns, and prints medians over the turns:

a. the prediction of a folder of images: reading, decoding and letterboxing, the network, non-maximum suppression;
b. the ONNX network on one image, as often as there are images;
c. images per second of a, divided by images per second of b;
d. processor time of b, divided by processor time of a: what c comes to on a machine with other load;
e. by how much the resident memory grew from the first 200 images to the end of the last turn.

Without ``--bundle`` the network has random weights, and finds no boxes; without ``--folder`` the images are generated.
The images are hard links to a few hundred files, so that many of them take little space.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kubeyolo.bundle import ONNX, Bundle, BundleManifest, open_bundle
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.evaluation.predictor import Predictor, Thresholds, load_predictor
from kubeyolo.file_kinds import IMAGE_SUFFIXES
from kubeyolo.memory import memory_of
from kubeyolo.models.named_facts import model_facts
from kubeyolo.prediction.sources import Source, find_sources
from kubeyolo.prediction.stream import Prediction, predict_images
from kubeyolo.publishing import publish_bundle
from kubeyolo.resources import usable_processors
from kubeyolo.storage.place import Place

BOUND = 0.9
FILES = 256
"""Different files of the generated images."""

WARM = 200
"""Images after which caches and pools of memory have their size."""


class Seconds(NamedTuple):
    """Clock and processor seconds of an image."""

    clock: float
    processor: float


def random_bundle(folder: Path, model: str, side: int) -> Bundle:
    """Publish a bundle whose ONNX network has random weights."""
    from kubeyolo.export.onnx import export_onnx
    from kubeyolo.models.registry import build_model
    from kubeyolo.runtime import configure_mindspore

    configure_mindspore()
    facts = model_facts(model)
    manifest = BundleManifest(
        model=model,
        classes=tuple(f"class {number}" for number in range(80)),
        image_size=(side, side),
        strides=facts.strides,
        anchors=facts.anchors,
    )
    export_onnx(manifest, lambda: build_model(model, 80).set_train(False), folder / ONNX)
    return publish_bundle(Place.of(folder / "bundle"), manifest, {ONNX: folder / ONNX})


def linked(files: Sequence[Path], folder: Path, count: int) -> Sequence[Source]:
    """Return a number of images, hard links to some files."""
    folder.mkdir()
    for number in range(count):
        file = files[number % len(files)]
        os.link(file, folder / f"{number:06d}{file.suffix}")
    return find_sources([str(folder)], None).images


def streamed(predictor: Predictor, sources: Sequence[Source], thresholds: Thresholds) -> Seconds:
    """Predict on all images, and return the seconds of an image."""
    start, before = time.perf_counter(), time.process_time()
    done = sum(isinstance(outcome, Prediction) for outcome in predict_images(predictor, sources, thresholds))
    assert done == len(sources), f"{len(sources) - done} images cannot be read"
    return Seconds((time.perf_counter() - start) / done, (time.process_time() - before) / done)


def network_alone(predictor: Predictor, images: int) -> Seconds:
    """Run the network on one batch as often as needed for a number of images; return the seconds of an image."""
    batch = np.zeros((predictor.batch_size, 3, *predictor.image_size), np.float32)
    turns = -(-images // predictor.batch_size)
    start, before = time.perf_counter(), time.process_time()
    for _ in range(turns):
        predictor.outputs(batch)
    count = turns * predictor.batch_size
    return Seconds((time.perf_counter() - start) / count, (time.process_time() - before) / count)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", help="URI of a bundle with an ONNX network; by default one with random weights")
    parser.add_argument("--folder", type=Path, help="folder of images; by default they are generated")
    parser.add_argument("--model", default="yolov5n-r7", help="model of the random weights")
    parser.add_argument("--side", type=int, default=640, help="side of the input of the random weights")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3, help="turns of a and b each")
    parser.add_argument("--check", action="store_true", help=f"fail when c is below {BOUND}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kubeyolo-bench-") as name:
        work = Path(name)
        bundle = (
            open_bundle(Place.of(options.bundle))
            if options.bundle
            else random_bundle(work, options.model, options.side)
        )
        folder = options.folder or generate_sample_dataset(work / "source", train=FILES, val=1, image_size=(640, 480))
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        # Links need the same file system.
        with tempfile.TemporaryDirectory(prefix=".kubeyolo-bench-", dir=folder) as links:
            sources = linked(files, Path(links) / "images", options.images)
            predictor, thresholds = load_predictor(bundle, "onnx", batch_size=1), Thresholds()
            network_alone(predictor, 10)
            streamed(predictor, [*islice(sources, min(WARM, options.images))], thresholds)
            resident, times = memory_of(os.getpid()), dict[str, list[Seconds]](a=[], b=[])
            for _ in range(options.rounds):
                times["b"].append(network_alone(predictor, min(options.images, 300)))
                times["a"].append(streamed(predictor, sources, thresholds))
            grown = memory_of(os.getpid()) - resident
    return report(times, grown, bundle, options)


def report(times: dict[str, list[Seconds]], grown: int, bundle: Bundle, options: argparse.Namespace) -> int:
    a, b = (statistics.median(each.clock for each in times[name]) for name in "ab")
    # Ratios of adjacent turns, so that a temporary slowdown of the machine affects both.
    turns = list(zip(times["a"], times["b"], strict=True))
    ratios = [bare.clock / whole.clock for whole, bare in turns]
    ratio, shares = statistics.median(ratios), [bare.processor / whole.processor for whole, bare in turns]
    height, width = bundle.manifest.image_size
    cores = usable_processors()
    print(f"{bundle.manifest.model}, {height} x {width} px, {cores} cores, {options.images} images")
    print(f"a  prediction   {a * 1e3:8.1f} ms an image  {1 / a:6.2f} images/s")
    print(f"b  network      {b * 1e3:8.1f} ms an image  {1 / b:6.2f} images/s")
    print(f"c  a over b     {ratio:8.3f}  ({min(ratios):.3f} to {max(ratios):.3f}; --check: {BOUND})")
    print(f"d  processor    {statistics.median(shares):8.3f}  ({min(shares):.3f} to {max(shares):.3f})")
    print(f"e  memory grew  {grown / 1e6:8.1f} MB")
    return 1 if options.check and ratio < BOUND else 0


if __name__ == "__main__":
    sys.exit(main())
