"""Compare the speed of non-maximum suppression with that of OpenCV, or with that of a checkout of YOLOv5.

    python -m benchmarks.nms [--images 500] [--check] [--yolov5 FOLDER]

The input is the decoded output of a network for an image of 640 x 640 pixels: 25,200 boxes, 80 classes. One set of
images is like the output of a trained network; the other has random boxes and probabilities, about two million
candidates an image, and OpenCV is measured on four of these images only. Both programs take each image in turn; the
processor time of each image counts, from the decoded output to the kept boxes, and the medians are compared.

OpenCV's program is NMSBoxesBatched, which compares boxes of one class, on the best 30,000 candidates; numpy selects
them. ``--yolov5`` or the environment variable KUBEYOLO_YOLOV5 names a checkout of YOLOv5, whose function
non_max_suppression (torchvision) is then measured instead; torch and torchvision must be installed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Callable

import cv2
import numpy as np

from benchmarks.predictions import BOXES, CLASSES, KINDS
from kubeyolo.arrays import Float32Array
from kubeyolo.evaluation.nms import MAX_CANDIDATES, non_max_suppression

BOUND = 3.0
CONF, IOU, MOST = 0.001, 0.65, 300
DIFFERENT = 20
"""Images that are generated; they are measured again and again."""

Suppression = Callable[[Float32Array], int]


def ours(predictions: Float32Array) -> int:
    return len(non_max_suppression([predictions], CONF, IOU, MOST)[0])


def opencv(predictions: Float32Array) -> int:
    boxes = predictions[predictions[:, 4] > CONF]
    scores = boxes[:, 5:] * boxes[:, 4:5]
    box, label = np.nonzero(scores > CONF)
    score = scores[box, label]
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:4] / 2, boxes[:, 2:4]], axis=1)
    order = np.argsort(-score)[:MAX_CANDIDATES]
    kept = cv2.dnn.NMSBoxesBatched(corners[box[order]], score[order], label[order].astype(np.int32), CONF, IOU)
    return len(kept[:MOST])


def yolov5(checkout: str) -> Suppression:
    """Return the suppression of a checkout of YOLOv5."""
    sys.path.insert(0, checkout)
    torch = importlib.import_module("torch")
    suppress = importlib.import_module("utils.general").non_max_suppression

    def theirs(predictions: Float32Array) -> int:
        return len(suppress(torch.from_numpy(predictions[None]), CONF, IOU, multi_label=True, max_det=MOST)[0])

    return theirs


def measure(images: list[Float32Array], count: int, theirs: Suppression) -> tuple[float, float]:
    """Return the median processor seconds of an image, ours and theirs, and check that both keep as many boxes."""
    seconds = []
    for number in range(count):
        image = images[number % len(images)]
        marks, kept = [time.process_time()], []
        for suppress in (ours, theirs):
            kept.append(suppress(image))
            marks.append(time.process_time())
        # Another arithmetic may decide otherwise on a pair at the threshold.
        assert abs(kept[0] - kept[1]) <= MOST // 20, kept
        seconds.append(np.diff(marks))
    own, other = np.median(seconds, axis=0).tolist()
    return own, other


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--uniform-images", type=int, default=4)
    parser.add_argument("--yolov5", default=os.environ.get("KUBEYOLO_YOLOV5", ""), metavar="FOLDER")
    parser.add_argument("--check", action="store_true", help=f"fail when a ratio is below {BOUND}")
    options = parser.parse_args()
    cv2.setNumThreads(0)
    name, theirs = ("YOLOv5", yolov5(options.yolov5)) if options.yolov5 else ("OpenCV", opencv)
    print(f"{BOXES} boxes, {CLASSES} classes, confidence {CONF}: processor time of an image, kubeyolo and {name}")
    ratios = []
    for kind, count in (("trained", options.images), ("uniform", options.uniform_images)):
        rng = np.random.default_rng(0)
        images = [KINDS[kind](rng) for _ in range(min(count, DIFFERENT))]
        own, other = measure(images, count, theirs)
        ratios.append(other / own)
        print(f"{kind:8} {count:4} images  {own * 1e3:7.2f} ms  {other * 1e3:8.2f} ms  {ratios[-1]:7.2f} x")
    return 1 if options.check and min(ratios) < BOUND else 0


if __name__ == "__main__":
    sys.exit(main())
