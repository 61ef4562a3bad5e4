"""Measure time and memory of reading COCO annotations with kubeyolo and with pycocotools, in separate processes.

    python -m benchmarks.annotations [--images 118287] [--boxes 860001] [--repeat 3] [--file instances.json]

Without ``--file`` it generates annotations as large as COCO's instances_train2017.json (about 490 MB with
segmentations). kubeyolo reads, checks and sorts; pycocotools reads and indexes. The output has the medians of both, and
the ratios of kubeyolo to pycocotools.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

_OURS = """
import resource, sys, time
from pathlib import Path
import numpy, kubeyolo.data.annotations
from kubeyolo.data.annotations import Sources, check_annotations
from kubeyolo.data.file_names import FileNames
from kubeyolo.data.findings import Findings
from kubeyolo.data.readers.coco_json import read_coco_json
path = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
raw = read_coco_json(path)
files = {"train": FileNames(path.parent, raw.images.names)}
found = Findings()
annotations = check_annotations(Sources({"train": raw}, files, ("train",), ("train",)), found)
seconds = time.perf_counter() - start
index = annotations.splits["train"]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(seconds, (peak - before) / 1024, len(index), index.boxes)
"""
_THEIRS = """
import contextlib, io, resource, sys, time
import numpy
from pycocotools.coco import COCO
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
with contextlib.redirect_stdout(io.StringIO()):
    coco = COCO(sys.argv[1])
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(seconds, (peak - before) / 1024, len(coco.imgs), len(coco.anns))
"""


def main() -> None:
    """Generate the file, measure both programs in turns, and print the medians and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=118_287)
    parser.add_argument("--boxes", type=int, default=860_001)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--file", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.file or _write(Path(folder) / "instances.json", options.images, options.boxes)
        print(f"{path.stat().st_size / 1e6:.0f} MB")
        measured: dict[str, list[tuple[float, float]]] = {"kubeyolo": [], "pycocotools": []}
        for _ in range(options.repeat):
            for name, program in (("kubeyolo", _OURS), ("pycocotools", _THEIRS)):
                measured[name].append(_measure(program, path))
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in measured.items()
    }
    for name, (seconds, megabytes) in medians.items():
        print(f"{name:12} {seconds:7.2f} s {megabytes:7.0f} MB")
    ours, theirs = medians["kubeyolo"], medians["pycocotools"]
    print(f"kubeyolo / pycocotools: time {ours[0] / theirs[0]:.2f}, memory {ours[1] / theirs[1]:.2f}")


def _measure(program: str, path: Path) -> tuple[float, float]:
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True)
    seconds, megabytes, _, _ = map(float, done.stdout.split())
    return seconds, megabytes


def _write(path: Path, images: int, boxes: int) -> Path:
    """Write annotations like those of COCO: boxes with two decimals, and polygons of about twenty points."""
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        file.write('{"info": {}, "licenses": [], "images": [')
        for i in range(images):
            row = {
                "license": 3,
                "file_name": f"{i + 1:012d}.jpg",
                "coco_url": f"http://images.example/train2017/{i + 1:012d}.jpg",
                "height": 480,
                "width": 640,
                "date_captured": "2013-11-14 11:18:45",
                "flickr_url": f"http://farm9.example/8186/{i + 1:012d}_d4d7c59a90_z.jpg",
                "id": i + 1,
            }
            file.write(("" if i == 0 else ", ") + json.dumps(row))
        file.write('], "annotations": [')
        for start in range(0, boxes, 10_000):
            count = min(10_000, boxes - start)
            corners = np.round(rng.uniform((0, 0), (500, 380), (count, 2)), 2)
            sides = np.round(rng.uniform(2, 100, (count, 2)), 2)
            points = np.round(corners[:, None] + rng.uniform(0, 1, (count, 22, 2)) * sides[:, None], 2)
            for n in range(count):
                (x, y), (w, h) = corners[n].tolist(), sides[n].tolist()
                row = {
                    "segmentation": [points[n].ravel().tolist()],
                    "area": round(w * h * 0.6, 4),
                    "iscrowd": 0,
                    "image_id": int(rng.integers(images)) + 1,
                    "bbox": [x, y, w, h],
                    "category_id": int(rng.integers(80)) + 1,
                    "id": start + n + 1,
                }
                file.write(("" if start + n == 0 else ", ") + json.dumps(row))
        categories = [{"supercategory": "thing", "id": i + 1, "name": f"class {i + 1}"} for i in range(80)]
        file.write(f'], "categories": {json.dumps(categories)}}}')
    return path


if __name__ == "__main__":
    main()
