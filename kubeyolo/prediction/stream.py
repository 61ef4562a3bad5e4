"""Predictions as a stream: threads read images and draw pictures while the network runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from kubeyolo.arrays import Float32Array, Float64Array, Pixels
from kubeyolo.bundle import Preprocessing
from kubeyolo.data.decode import Note, decode_file
from kubeyolo.data.headers import ImageFault
from kubeyolo.errors import KubeyoloError, one_line
from kubeyolo.evaluation.nms import MAX_CANDIDATES
from kubeyolo.evaluation.predictor import Predictor, Prepared, Thresholds, detect_prepared, prepare
from kubeyolo.prediction.drawing import Painter
from kubeyolo.prediction.sources import Source, SourceFault
from kubeyolo.prediction.targets import write_picture
from kubeyolo.prediction.windows import Slicing, Window, merge
from kubeyolo.resources import usable_processors

_In = TypeVar("_In")
_Out = TypeVar("_Out")

_LONGEST = 200
NOT_DRAWN, DRAWN_AS_PNG = "not_drawn", "drawn_as_png"


@dataclass(frozen=True)
class Prediction:
    """The boxes of an image.

    Attributes:
        source: The image.
        width: Width of the image as a viewer shows it, in pixels.
        height: Height of the image.
        rows: (k, 6) of x1, y1, x2, y2 in pixels, score and class number, best first.
        notes: Notes from its decoding, and why its picture was not drawn.
        drawn: Path of the drawn picture; None if it was not drawn.
    """

    source: Source
    width: int
    height: int
    rows: Float32Array
    notes: tuple[Note, ...] = ()
    drawn: str | None = None


@dataclass(frozen=True)
class Failure:
    """An image that cannot be read, and why."""

    source: Source
    reason: str


@dataclass(frozen=True)
class _Read:
    source: Source
    prepared: Prepared
    notes: tuple[Note, ...]
    pixels: Pixels | None


def predict_images(
    predictor: Predictor,
    sources: Sequence[Source],
    thresholds: Thresholds,
    painter: Painter | None = None,
    targets: Sequence[Path] = (),
    class_scores: Float64Array | None = None,
    slicing: Slicing | None = None,
) -> Iterator[Prediction | Failure]:
    """Yield the boxes of each image as soon as the image is done, in the order of the images.

    A limited number of images is in memory: images read ahead of the network, and images being drawn.

    Args:
        predictor: The model.
        sources: Images.
        thresholds: Limits on the boxes.
        painter: Draws pictures with boxes; None draws no pictures.
        targets: Path of the picture for each source; used only with a painter.
        class_scores: Lowest score of a box of each class (classes,), instead of the limit on the score that all classes
            share; None to use that limit.
        slicing: Windows of large images, which the network sees in addition to the whole image; None for no windows.

    Raises:
        WorkError: An object store does not answer.
    """
    threads = usable_processors()
    ahead = max(threads + 1, 2 * predictor.batch_size)
    paths = iter(targets)
    waiting: deque[Future[Prediction | Failure]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="kubeyolo-predict")
    try:
        size, preprocessing = predictor.image_size, predictor.manifest.preprocessing
        keeps_pixels = painter is not None or slicing is not None

        def read(source: Source) -> _Read | Failure:
            return _read(source, size, preprocessing, keeps_pixels)

        detector = _Detector(predictor, thresholds, class_scores, slicing, pool, ahead)
        reads = _in_order(pool, read, sources, ahead)
        while batch := list(islice(reads, predictor.batch_size)):
            for outcome, pixels in detector.detect(batch):
                target = next(paths, None)
                if painter and target and pixels is not None and isinstance(outcome, Prediction):
                    waiting.append(pool.submit(_draw, painter, outcome, pixels, target))
                else:
                    waiting.append(_done(outcome))
            while waiting and (waiting[0].done() or len(waiting) > threads):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _in_order(
    pool: ThreadPoolExecutor, make: Callable[[_In], _Out], items: Iterable[_In], ahead: int
) -> Iterator[_Out]:
    """Yield what is made of each item, in order, while up to ``ahead`` later items are being made."""
    asked: deque[Future[_Out]] = deque()
    for item in items:
        asked.append(pool.submit(make, item))
        if len(asked) >= ahead:
            yield asked.popleft().result()
    while asked:
        yield asked.popleft().result()


def _read(source: Source, size: tuple[int, int], preprocessing: Preprocessing, keep: bool) -> _Read | Failure:
    """Read and letterbox an image; if ``keep`` is true, its original pixels are kept for drawing."""
    try:
        decoded = decode_file(source.read(), preprocessing.levels)
        prepared = prepare(decoded.pixels, size, preprocessing)
    except (SourceFault, ImageFault) as error:
        return Failure(source, str(error))
    except MemoryError:
        return Failure(source, "does not fit in memory")
    except KubeyoloError:
        raise
    except Exception as error:  # an odd file must not end the prediction on thousands of others
        return Failure(source, f"cannot be decoded ({type(error).__name__}: {one_line(error, _LONGEST)})")
    return _Read(source, prepared, decoded.notes, decoded.pixels if keep else None)


class _Detector:
    """Finds the boxes of images that are read.

    Args:
        predictor: The model.
        thresholds: Limits on the boxes.
        class_scores: Lowest score of a box of each class (classes,), or None.
        slicing: Windows of large images, or None.
        pool: Threads that prepare windows.
        ahead: Windows that are prepared ahead of the network.
    """

    def __init__(
        self,
        predictor: Predictor,
        thresholds: Thresholds,
        class_scores: Float64Array | None,
        slicing: Slicing | None,
        pool: ThreadPoolExecutor,
        ahead: int,
    ) -> None:
        self._predictor, self._thresholds, self._class_scores = predictor, thresholds, class_scores
        self._slicing, self._pool, self._ahead = slicing, pool, ahead

    def detect(self, batch: Sequence[_Read | Failure]) -> Iterator[tuple[Prediction | Failure, Pixels | None]]:
        """Yield the boxes of each image of a batch, in order, with its pixels if they were kept."""
        windows = [self._windows(read) for read in batch]
        whole = [
            read.prepared for read, parts in zip(batch, windows, strict=True) if isinstance(read, _Read) and not parts
        ]
        rows = iter(self._boxes(whole))
        for read, parts in zip(batch, windows, strict=True):
            if isinstance(read, Failure):
                yield read, None
                continue
            boxes = self._merged(read, parts) if parts else next(rows)
            geometry = read.prepared.geometry
            yield Prediction(read.source, geometry.image_width, geometry.image_height, boxes, read.notes), read.pixels

    def _windows(self, read: _Read | Failure) -> list[Window]:
        """Return the windows of an image; none if the network sees it as a whole only."""
        if self._slicing is None or isinstance(read, Failure):
            return []
        geometry = read.prepared.geometry
        windows = self._slicing.windows(geometry.image_width, geometry.image_height)
        return windows if len(windows) > 1 else []

    def _merged(self, read: _Read, windows: Sequence[Window]) -> Float32Array:
        """Return the boxes of an image from its windows, which are prepared while the network runs."""
        predictor, pixels = self._predictor, read.pixels
        assert pixels is not None

        def prepared(window: Window) -> Prepared:
            return prepare(window.of(pixels), predictor.image_size, predictor.manifest.preprocessing)

        parts = _in_order(self._pool, prepared, windows, self._ahead)
        rows: list[Float32Array] = []
        while batch := list(islice(parts, predictor.batch_size)):
            rows += self._boxes(batch)
        moved = [(window, window.moved(each)) for window, each in zip(windows, rows, strict=True)]
        return merge(moved, pixels.shape[1], pixels.shape[0], self._thresholds.iou, self._thresholds.max_det)

    def _boxes(self, prepared: Sequence[Prepared]) -> list[Float32Array]:
        """Return the boxes of each image; with a score for each class, boxes of lower scores are left out."""
        scores, thresholds = self._class_scores, self._thresholds
        if scores is None:
            return detect_prepared(self._predictor, prepared, thresholds)
        # A box never suppresses a better one, so boxes may be left out afterwards; the best of the others stay.
        lowest = replace(thresholds, conf=float(scores.min(initial=1.0)), max_det=MAX_CANDIDATES)
        found = detect_prepared(self._predictor, prepared, lowest)
        return [rows[rows[:, 4] >= scores[rows[:, 5].astype(np.int64)]][: thresholds.max_det] for rows in found]


def _draw(painter: Painter, prediction: Prediction, pixels: Pixels, target: Path) -> Prediction:
    """Draw and write a picture; an error becomes a note on the prediction."""
    try:
        written = write_picture(painter.draw(pixels, prediction.rows), target)
    except Exception as error:  # whatever fails while drawing or writing, the boxes are still valid
        reason = getattr(error, "strerror", None) or one_line(error, _LONGEST) or type(error).__name__
        return replace(prediction, notes=(*prediction.notes, Note(NOT_DRAWN, f"not drawn: {target}: {reason}")))
    notes = (Note(DRAWN_AS_PNG, written.note),) if written.note else ()
    return replace(prediction, notes=prediction.notes + notes, drawn=written.path)


def _done(outcome: Prediction | Failure) -> Future[Prediction | Failure]:
    future: Future[Prediction | Failure] = Future()
    future.set_result(outcome)
    return future
