"""Measure the loader: milliseconds of processor and clock time per batch, with and without cache and workers.

    python -m benchmarks.loader [DATASET_FOLDER] [--image-size 320] [--batch 8] [--workers 0,1,2] [--epochs 4]

The folder is a data set in COCO layout; by default, noise images of 640 x 480 pixels are generated. The first epoch
fills the cache and starts the workers; it is not counted. The last lines compare kinds of augmentation: batches made in
one process from cached images.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from kubeyolo.config.training_schema import AugmentConfig, DataConfig
from kubeyolo.data.dataset import Split
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
    options = parser.parse_args()
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or noise_folder(Path(name) / "noise")
        compare(write_dataset(folder, Place.of(f"{name}/store")).split("train"), options)


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


if __name__ == "__main__":
    main()
