"""Measure the loader: milliseconds of processor and clock time per batch, with and without cache and workers.

    python -m benchmarks.loader [DATASET_FOLDER] [--image-size 320] [--batch 8] [--workers 0,1,2] [--epochs 4]
    python -m benchmarks.loader [DATASET_FOLDER] --large [--times 8] [--ultralytics FOLDER [--python PROGRAM]]

The folder is a data set in COCO layout; by default, noise images of 640 x 480 pixels are generated. The first epoch
fills the cache and starts the workers; it is not counted. The last lines compare kinds of augmentation: batches made in
one process from cached images.

With --large, samples are made in one process, in processor time: with partners from all images without a cache, and
with partners from a window that fits into the cache. Each image is in the set several times. --ultralytics names a
checkout of ultralytics, or a folder that it is installed in, whose loader makes mosaics of the same images; --python
names the interpreter that has its requirements.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np

from kubeyolo.arrays import Pixels
from kubeyolo.config.training_schema import AugmentConfig, DataConfig
from kubeyolo.data.batches import LEAST_WINDOW_BATCHES, WINDOW_SHARE
from kubeyolo.data.cache import MEGABYTE, tile_bytes
from kubeyolo.data.dataset import Split
from kubeyolo.data.letterbox import letterbox_geometry
from kubeyolo.data.loader import Loader
from kubeyolo.data.shards import write_dataset
from kubeyolo.storage.place import Place


def noise_folder(folder: Path, images: int = 128, boxes: int = 13) -> Path:
    """Write a data set of noise images of 640 x 480 pixels in COCO layout."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        entries, annotations = [], []
        for image in range(1, images + 1):
            coarse = rng.integers(0, 256, (48, 64, 3)).astype(np.uint8)
            name = f"{split}-{image}.jpg"
            cv2.imwrite(str(folder / split / name), cv2.resize(coarse, (640, 480)))
            entries.append({"id": image, "file_name": name, "width": 640, "height": 480})
            for x, y, w, h in rng.uniform((0, 0, 10, 10), (540, 380, 100, 100), (boxes, 4)).tolist():
                box = {"image_id": image, "category_id": 1, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
                annotations.append(box | {"id": len(annotations) + 1})
        document = {"images": entries, "annotations": annotations, "categories": [{"id": 1, "name": "box"}]}
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(document))
    return folder


KINDS = {
    "mosaic": AugmentConfig(),
    "mosaic, rotation": AugmentConfig(degrees=10.0),
    "mosaic, perspective": AugmentConfig(perspective=0.0005),
    "mosaic, copies": AugmentConfig(copy_paste=0.1),
    "single images": AugmentConfig(mosaic=0.0),
    "single images, rotation": AugmentConfig(mosaic=0.0, degrees=10.0),
}


def measure(
    source: Split, data: DataConfig, size: int, batch: int, epochs: int, augment: AugmentConfig = KINDS["mosaic"]
) -> tuple[float, float]:
    """Return the median milliseconds of clock and processor time for a batch; with workers, the latter is NaN."""
    clock, processor = [], []
    with Loader(source, data, augment, size, batch, seed=0) as loader:
        for epoch in range(epochs + 1):
            started, spent = time.perf_counter(), time.process_time()
            for _ in loader.epoch(epoch):
                if epoch:
                    clock.append(time.perf_counter() - started)
                    processor.append(time.process_time() - spent)
                started, spent = time.perf_counter(), time.process_time()
    return float(np.median(clock)) * 1e3, float("nan") if data.workers else float(np.median(processor)) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--large", action="store_true", help="measure with caches that do not hold the set")
    parser.add_argument("--times", type=int, default=8, help="how often each image is in the set, with --large")
    parser.add_argument("--ultralytics", metavar="FOLDER", help="checkout of ultralytics, or where it is installed")
    parser.add_argument("--python", default=sys.executable, metavar="PROGRAM", help="interpreter for ultralytics")
    options = parser.parse_args()
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or noise_folder(Path(name) / "noise")
        source = write_dataset(folder, Place.of(f"{name}/store")).split("train")
        if options.large:
            compare_large(source, options, Path(name))
        else:
            compare(source, options)


def compare(source: Split, options: argparse.Namespace) -> None:
    print(f"{len(source.index)} images, {options.image_size} px, batches of {options.batch}, mosaic; medians")
    print("workers  cache  ms/batch (clock)  ms/batch (processor)")
    for workers in map(int, options.workers.split(",")):
        for cache in (True, False):
            data = DataConfig(workers=workers, cache=cache)
            clock, processor = measure(source, data, options.image_size, options.batch, options.epochs)
            print(f"{workers:7}  {'yes' if cache else 'no ':5}  {clock:16.1f}  {processor:20.1f}", flush=True)
    print("images/s (processor)  augmentation")
    for kind, augment in KINDS.items():
        data = DataConfig(workers=0)
        _, processor = measure(source, data, options.image_size, options.batch, options.epochs, augment)
        print(f"{1e3 * options.batch / processor:20.0f}  {kind}", flush=True)


class CountedSplit(Split):
    """Counts the images that are decoded."""

    decoded = 0

    def read_image(self, i: int) -> Pixels:
        """Count the image, and return it."""
        self.decoded += 1
        return super().read_image(i)


def repeated(source: Split, times: int) -> CountedSplit:
    """Return a split that has each image several times, as different images."""
    index = source.index
    values = {}
    for field in fields(index):
        value = getattr(index, field.name)
        if field.name == "box_start":
            counts = np.tile(np.diff(index.box_start), times)
            value = np.concatenate([[0], np.cumsum(counts)])
        elif isinstance(value, list):
            value = value * times
        elif value is not None:
            value = np.concatenate([value] * times)
        values[field.name] = value
    return CountedSplit(source.name, replace(index, **values), source.shards, source.levels)


def compare_large(source: Split, options: argparse.Namespace, folder: Path) -> None:
    """Print images per second of decoding, of samples with both kinds of partners, and of ultralytics."""
    split, size, batch = repeated(source, options.times), options.image_size, options.batch
    tiles = [
        letterbox_geometry(int(w), int(h), size) for w, h in zip(split.index.width, split.index.height, strict=True)
    ]
    total = tile_bytes(np.array([(tile.width, tile.height) for tile in tiles], np.int64))
    window = max(len(split) // 4, LEAST_WINDOW_BATCHES * batch)
    limit = int(total * window / len(split) / WINDOW_SHARE / MEGABYTE) + 1
    data = DataConfig(workers=0, cache_limit_mb=limit)
    megabytes = round(total / MEGABYTE)
    print(f"{len(split)} images, {megabytes} MB when decoded for {size} px; cache {limit} MB; batches of {batch}")

    turns: dict[str, Callable[[], Iterator[float]]] = {
        "decoding alone": lambda: decoding_rates(split, options.epochs),
        "partners from all images": lambda: sample_rates(
            split, DataConfig(workers=0, cache=False), AugmentConfig(partner_window=0), options
        ),
        f"partners from {window} images": lambda: sample_rates(
            split, data, AugmentConfig(partner_window=window), options
        ),
    }
    if options.ultralytics:
        write_yolo(source, folder / "yolo", options.times)
        turns["ultralytics"] = lambda: ultralytics_rates(folder / "yolo", options)
    running = {name: turn() for name, turn in turns.items()}
    rates: dict[str, list[float]] = {name: [] for name in turns}
    decoded = dict.fromkeys(turns, 0)
    for _ in range(options.epochs):
        # In turns, so that a change of the machine's speed affects all.
        for name, rate in running.items():
            split.decoded = 0
            rates[name].append(next(rate))
            decoded[name] = split.decoded
    alone = statistics.median(rates["decoding alone"])
    print("images/s (processor)  of decoding  decoded images  what (median, least and most of the epochs)")
    for name, values in rates.items():
        rate = statistics.median(values)
        count = f"{decoded[name] / len(split):.2f}" if decoded[name] else "?"
        spread = f"{min(values):.0f} to {max(values):.0f}"
        print(f"{rate:20.1f}  {rate / alone:11.2f}  {count:>14}  {name} ({spread})", flush=True)


def decoding_rates(split: Split, epochs: int) -> Iterator[float]:
    """Yield the images that are decoded in a second of processor time, for each epoch."""
    for _ in range(epochs):
        spent = time.process_time()
        for image in range(len(split)):
            split.read_image(image)
        yield len(split) / (time.process_time() - spent)


def sample_rates(
    split: Split, data: DataConfig, augment: AugmentConfig, options: argparse.Namespace
) -> Iterator[float]:
    """Yield the samples that are made in a second of processor time, for each epoch after the first."""
    with Loader(split, data, augment, options.image_size, options.batch, seed=0) as loader:
        for _ in loader.epoch(0):
            pass
        for epoch in range(1, options.epochs + 1):
            spent = time.process_time()
            samples = sum(len(batch.images) for batch in loader.epoch(epoch))
            yield samples / (time.process_time() - spent)


def write_yolo(source: Split, folder: Path, times: int) -> None:
    """Write images and boxes as ultralytics reads them; each image is there several times."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    index = source.index
    for image in range(len(index)):
        side = np.array([index.width[image], index.height[image]] * 2)
        rows = index.boxes_of(image)
        boxes = index.box_xywh[rows] / side
        boxes[:, :2] += boxes[:, 2:] / 2
        lines = [
            f"{number} {' '.join(f'{value:.6f}' for value in box)}"
            for number, box in zip(index.box_class[rows].tolist(), boxes.clip(0, 1).tolist(), strict=True)
        ]
        for copy in range(times):
            (folder / "images" / f"{image}-{copy}.jpg").write_bytes(source.read_bytes(image))
            (folder / "labels" / f"{image}-{copy}.txt").write_text("\n".join(lines))


# Runs with the interpreter and the packages of ultralytics; prints a rate for each line that it reads.
ULTRALYTICS = """
import sys, time
import cv2, torch
from ultralytics.cfg import get_cfg
from ultralytics.data.dataset import YOLODataset
cv2.setNumThreads(0)
torch.set_num_threads(1)
folder, size, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
names = {number: str(number) for number in range(1000)}
dataset = YOLODataset(
    img_path=folder, imgsz=size, batch_size=batch, augment=True, hyp=get_cfg(), rect=False, cache=None,
    data={"names": names, "nc": 1000, "channels": 3}, task="detect",
)
order = torch.Generator().manual_seed(0)
def epoch():
    for image in torch.randperm(len(dataset), generator=order).tolist():
        dataset[image]
epoch()
print("ready", flush=True)
for line in sys.stdin:
    spent = time.process_time()
    epoch()
    print("rate", len(dataset) / (time.process_time() - spent), flush=True)
"""


def ultralytics_rates(folder: Path, options: argparse.Namespace) -> Iterator[float]:
    """Yield the samples that ultralytics makes in a second of processor time, for each epoch after the first."""
    environment = os.environ | {
        "PYTHONPATH": options.ultralytics,
        "OMP_NUM_THREADS": "1",
        "YOLO_CONFIG_DIR": str(folder),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
    }
    command = [options.python, "-c", ULTRALYTICS, str(folder / "images"), str(options.image_size), str(options.batch)]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        # It prints lines of its own, too.
        while (line := child.stdout.readline()) and line != "ready\n":
            pass
        while True:
            child.stdin.write("epoch\n")
            child.stdin.flush()
            while (line := child.stdout.readline()) and not line.startswith("rate "):
                pass
            if not line:
                raise SystemExit(f"ultralytics in {options.ultralytics} ended with exit code {child.wait()}")
            yield float(line.split()[1])


if __name__ == "__main__":
    main()
