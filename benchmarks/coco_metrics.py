"""Measure time and memory of the COCO metrics with hotcoco and with pycocotools, each in a process of its own.

    python -m benchmarks.coco_metrics [--images 5000] [--detections 100] [--engines hotcoco,pycocotools]

The set is generated and as large as COCO's val2017: 36,781 boxes of 80 classes, 1.2 % of them crowds. The time starts
with the rows of the results in memory and ends with the metrics; the memory is what is added to the rows. The metrics
of both engines are compared.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

import numpy as np

_BOXES_PER_IMAGE = 36_781 / 5000
_CLASSES = 80


def main() -> None:
    """Measure each engine, and print seconds, megabytes, and the largest difference of the metrics."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100, help="per image")
    parser.add_argument("--engines", default="hotcoco,pycocotools")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(_measured(options.measure, options.images, options.detections)))
        return
    sizes = ["--images", str(options.images), "--detections", str(options.detections)]
    print(f"{options.images} images, {options.images * options.detections} detections")
    found = {}
    for engine in options.engines.split(","):
        command = [sys.executable, "-m", "benchmarks.coco_metrics", *sizes, "--measure", engine]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[engine] = json.loads(done.stdout)
        print(f"{engine:12} {found[engine]['seconds']:7.2f} s {found[engine]['megabytes']:7.0f} MB", flush=True)
    one, *others = [each["numbers"] for each in found.values()]
    for other in others:
        print(
            f"largest difference of a metric: {max(abs(one[key] - other[key]) for key in one):.1e}; AP {one['AP']:.4f}"
        )


def _measured(engine: Any, images: int, per_image: int) -> dict[str, Any]:
    import resource
    import time

    from kubeyolo.evaluation.coco_eval import evaluate_detections

    truth, detections = generated(images, per_image)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    result = evaluate_detections(truth, detections, engine)
    seconds = time.perf_counter() - start
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"seconds": seconds, "megabytes": megabytes, "numbers": result.numbers}


def generated(images: int, per_image: int) -> tuple[dict[str, Any], list[Any]]:
    """Return ground truth and detections: most boxes are found at a random distance, the rest are false alarms."""
    rng = np.random.default_rng(0)
    count = int(images * _BOXES_PER_IMAGE)
    image = np.sort(rng.integers(0, images, count))
    sides = np.exp(rng.uniform(np.log(8), np.log(400), (count, 2)))
    boxes = np.round(np.hstack([rng.uniform(0, 300, (count, 2)), sides]), 2)
    classes = np.minimum(rng.geometric(0.06, count) - 1, _CLASSES - 1)
    crowd = rng.random(count) < 0.012
    truth = {
        "images": [{"id": i, "width": 640, "height": 480} for i in range(images)],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(_CLASSES)],
        "annotations": [
            {
                "id": n,
                "image_id": int(image[n]),
                "category_id": int(classes[n]),
                "bbox": boxes[n].tolist(),
                "area": float(boxes[n, 2] * boxes[n, 3] * 0.7),
                "iscrowd": int(crowd[n]),
            }
            for n in range(count)
        ],
    }
    starts = np.searchsorted(image, np.arange(images + 1))
    detections = []
    for i in range(images):
        own = np.arange(starts[i], starts[i + 1])[:per_image]
        near = boxes[own] + rng.normal(0, 0.08, (len(own), 4)) * np.tile(sides[own], 2)
        others = per_image - len(own)
        false = np.hstack([rng.uniform(0, 300, (others, 2)), np.exp(rng.uniform(2, 6, (others, 2)))])
        rows = np.round(np.maximum(np.vstack([near, false]), 0), 3).tolist()
        labels = [*classes[own].tolist(), *rng.integers(0, _CLASSES, others).tolist()]
        scores = np.round(np.concatenate([rng.beta(4, 3, len(own)), rng.beta(1, 8, others)]), 6).tolist()
        detections += [
            {"image_id": i, "category_id": label, "bbox": box, "score": score}
            for box, label, score in zip(rows, labels, scores, strict=True)
        ]
    return truth, detections


if __name__ == "__main__":
    main()
