"""Compare the speed of validating images with the speed of only decoding them, in images per second.

    python -m benchmarks.validation [FOLDER] [--images 2000] [--rounds 3] [--quality 92] [--threads 2]

The images are crops of 640 x 480 pixels from the JPEG files below the folder, compressed again; without a folder they
are noise. The speed of decoding is that of OpenCV in one thread, times the number of threads. Validation reads the
files, computes their sha256, reads their headers, decodes them, and checks them for findings. Validation is measured
with and without the hashes that find near copies. Each round measures decoding and validation; the medians over the
rounds are printed. On a machine with other load, processor time is more reliable than clock time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from kubeyolo.data.checks import check_images
from kubeyolo.resources import usable_processors

WIDTH, HEIGHT = 640, 480


def noise(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return an image with detail at two scales."""
    coarse = cv2.resize(rng.integers(0, 256, (24, 32, 3)).astype(np.uint8), (WIDTH, HEIGHT))
    fine = rng.integers(-24, 25, (HEIGHT, WIDTH, 3))
    return np.clip(coarse + fine, 0, 255).astype(np.uint8)


def cuts(folder: Path | None, rng: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
    """Yield images of 640 x 480 pixels without end."""
    paths = sorted(folder.rglob("*.jpg")) if folder else []
    while True:
        for path in paths or [None]:
            if path is None:
                yield noise(rng)
                continue
            image = cv2.imread(str(path))
            scale = max(WIDTH / image.shape[1], HEIGHT / image.shape[0]) * rng.uniform(1.0, 1.3)
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
            top = rng.integers(0, image.shape[0] - HEIGHT + 1)
            left = rng.integers(0, image.shape[1] - WIDTH + 1)
            yield image[top : top + HEIGHT, left : left + WIDTH]


def write_images(target: Path, folder: Path | None, count: int, quality: int) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [target / f"{i:05d}.jpg" for i in range(count)]
    for path, image in zip(paths, cuts(folder, rng), strict=False):
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, quality + int(rng.integers(-2, 4))])
    return paths


def decode_all(paths: list[Path]) -> tuple[float, float]:
    """Return clock and processor seconds for decoding an image in one thread, without reading its file."""
    seconds = spent = 0.0
    for path in paths:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        started, before = time.perf_counter(), time.process_time()
        cv2.imdecode(data, cv2.IMREAD_COLOR)
        seconds += time.perf_counter() - started
        spent += time.process_time() - before
    return seconds / len(paths), spent / len(paths)


def decode_in_threads(paths: list[Path], threads: int) -> tuple[float, float]:
    """Return clock and processor seconds for reading and decoding an image in several threads."""
    started, before = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda path: cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), 1) is None, paths):
            pass
    return (time.perf_counter() - started) / len(paths), (time.process_time() - before) / len(paths)


def validate_all(paths: list[Path], threads: int, compare: bool) -> tuple[float, float]:
    """Return clock and processor seconds for validating an image."""
    started, before = time.perf_counter(), time.process_time()
    looked = check_images(paths, [(WIDTH, HEIGHT)] * len(paths), threads=threads, compare=compare)
    assert not any(image.fault or image.notes for image in looked)
    return (time.perf_counter() - started) / len(paths), (time.process_time() - before) / len(paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quality", type=int, default=92)
    parser.add_argument("--threads", type=int, default=usable_processors())
    options = parser.parse_args()
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as name:
        paths = write_images(Path(name), options.folder, options.images, options.quality)
        size = np.mean([path.stat().st_size for path in paths]) / 1000
        print(f"{len(paths)} JPEG files of {WIDTH} x {HEIGHT} pixels, {size:.0f} kB each; {options.threads} threads")
        rounds = []
        for _ in range(options.rounds):
            checked = [validate_all(paths, options.threads, compare) for compare in (False, True)]
            rounds.append([decode_all(paths), decode_in_threads(paths, options.threads), *checked])
    compare(np.median(rounds, axis=0), options.threads)


def compare(seconds: NDArray[np.float64], threads: int) -> None:
    """Print medians (4, 2) of clock and processor seconds: decoding in one and in more threads, both validations."""
    rate = threads / seconds[0, 0]
    print("                                images/s  of decoding  processor ms  of decoding")
    print(f"decoding, one thread x {threads}        {rate:8.0f}               {seconds[0, 1] * 1e3:12.2f}")
    names = (f"decoding in {threads} threads", "validation without near copies", "validation with near copies")
    for name, (clock, processor) in zip(names, seconds[1:].tolist(), strict=True):
        shares = (
            f"{1 / clock:8.0f}  {1 / clock / rate:11.2f}  {processor * 1e3:12.2f}  {seconds[0, 1] / processor:11.2f}"
        )
        print(f"{name:30}  {shares}")


if __name__ == "__main__":
    main()
