"""Predictions as a stream: threads read images and draw pictures while the network runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from kubeyolo.arrays import Float32Array, Float64Array, Pixels
from kubeyolo.data.decode import Note, decode_file
from kubeyolo.data.headers import ImageFault
from kubeyolo.errors import KubeyoloError, one_line
from kubeyolo.evaluation.nms import MAX_CANDIDATES
from kubeyolo.evaluation.outputs import Outputs
from kubeyolo.evaluation.predictor import Predictor, Prepared, Thresholds, network_input, prepare
from kubeyolo.prediction.drawing import Painter
from kubeyolo.prediction.sources import Source, SourceFault
from kubeyolo.prediction.targets import write_picture
from kubeyolo.prediction.windows import Slicing, Window, merge
from kubeyolo.resources import usable_processors

_In = TypeVar("_In")
_Out = TypeVar("_Out")

_INPUTS_AHEAD = 2
"""Batches whose inputs are made before the network needs them, with the one that it needs next."""

_OUTPUTS_WAITING = 2
"""Batches whose outputs may wait for their boxes to be found."""

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


class _Image:
    """An image on its way through the network.

    Attributes:
        read: The image as it was read.
        windows: What the network sees of it, the whole image last.
        target: Path of its picture; None if it is not drawn.
        rows: The boxes of the windows that the network has seen.
        outcome: Its prediction; None until the network has seen all windows.
    """

    def __init__(self, read: _Read, windows: Sequence[Window], target: Path | None) -> None:
        self.read, self.windows, self.target = read, windows, target
        self.rows: list[Future[Float32Array]] = []
        self.outcome: Future[Prediction] | None = None


@dataclass(frozen=True)
class _View:
    image: _Image
    window: Window
    prepared: Prepared


@dataclass(frozen=True)
class _Batch:
    views: Sequence[_View]
    array: Float32Array


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

    This thread does nothing but run the network: other threads read images, make the inputs of the next batches, find
    the boxes in outputs, and draw. A limited number of images is in memory.

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
    pool = ThreadPoolExecutor(threads, thread_name_prefix="kubeyolo-predict")
    work = _Work(predictor, thresholds, class_scores, slicing, painter)
    waiting: deque[_Image | Failure] = deque()
    running: deque[Future[Float32Array]] = deque()
    try:
        reads = _in_order(pool, work.read, sources, max(threads + 1, 2 * predictor.batch_size))
        batches = _batches(work, reads, targets, waiting, predictor.batch_size)
        for batch in _in_order(pool, work.input, batches, _INPUTS_AHEAD):
            outputs = predictor.outputs(batch.array)
            for number, view in enumerate(batch.views):
                view.image.rows.append(pool.submit(work.rows, outputs, number, view))
                if len(view.image.rows) == len(view.image.windows):
                    view.image.outcome = pool.submit(work.finish, view.image)
            running.append(batch.views[-1].image.rows[-1])
            # Outputs are large: those of few batches wait for their boxes to be found.
            while len(running) > _OUTPUTS_WAITING:
                running.popleft().result()
            yield from _finished(waiting, threads)
        yield from _finished(waiting, 0)
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


def _finished(waiting: deque[_Image | Failure], most: int) -> Iterator[Prediction | Failure]:
    """Yield the images that are done, in order; if more than ``most`` have left the network, wait for the first."""
    count = sum(isinstance(each, _Image) and each.outcome is not None for each in waiting)
    while waiting:
        first = waiting[0]
        if isinstance(first, Failure):
            yield first
        elif first.outcome is not None and (count > most or first.outcome.done()):
            count -= 1
            yield first.outcome.result()
        else:
            return
        waiting.popleft()


def _batches(
    work: _Work,
    reads: Iterable[_Read | Failure],
    targets: Sequence[Path],
    waiting: deque[_Image | Failure],
    size: int,
) -> Iterator[list[_View]]:
    """Yield the views of all images in batches, and append the images to those that wait for their boxes."""
    paths, batch = iter(targets), list[_View]()
    for read in reads:
        target = next(paths, None)
        if isinstance(read, Failure):
            waiting.append(read)
            continue
        image = _Image(read, work.windows(read), target)
        waiting.append(image)
        for window in image.windows:
            batch.append(_View(image, window, image.read.prepared))
            if len(batch) == size:
                yield batch
                batch = []
    if batch:
        yield batch


class _Work:
    """What the other threads do while the network runs.

    Args:
        predictor: The model.
        thresholds: Limits on the boxes.
        class_scores: Lowest score of a box of each class (classes,), or None.
        slicing: Windows of large images, or None.
        painter: Draws pictures, or None.
    """

    def __init__(
        self,
        predictor: Predictor,
        thresholds: Thresholds,
        class_scores: Float64Array | None,
        slicing: Slicing | None,
        painter: Painter | None,
    ) -> None:
        self._predictor, self._class_scores = predictor, class_scores
        self._slicing, self._painter = slicing, painter
        self._iou, self._max_det = thresholds.iou, thresholds.max_det
        # A box never suppresses a better one, so boxes may be left out afterwards; the best of the others stay.
        self._thresholds = (
            thresholds
            if class_scores is None
            else replace(thresholds, conf=float(class_scores.min(initial=1.0)), max_det=MAX_CANDIDATES)
        )

    def read(self, source: Source) -> _Read | Failure:
        """Read and letterbox an image; its pixels are kept if they are drawn or divided into windows."""
        preprocessing = self._predictor.manifest.preprocessing
        try:
            decoded = decode_file(source.read(), preprocessing.levels)
            prepared = prepare(decoded.pixels, self._predictor.image_size, preprocessing)
        except (SourceFault, ImageFault) as error:
            return Failure(source, str(error))
        except MemoryError:
            return Failure(source, "does not fit in memory")
        except KubeyoloError:
            raise
        except Exception as error:  # an odd file must not end the prediction on thousands of others
            return Failure(source, f"cannot be decoded ({type(error).__name__}: {one_line(error, _LONGEST)})")
        keeps_pixels = self._painter is not None or self._slicing is not None
        return _Read(source, prepared, decoded.notes, decoded.pixels if keeps_pixels else None)

    def windows(self, read: _Read) -> list[Window]:
        """Return the windows of an image; only the whole image if the network sees nothing else."""
        geometry = read.prepared.geometry
        width, height = geometry.image_width, geometry.image_height
        return self._slicing.windows(width, height) if self._slicing else [Window(0, 0, width, height)]

    def input(self, views: Sequence[_View]) -> _Batch:
        """Return the input of the network for some views."""
        predictor = self._predictor
        ready = [self._prepared(view) for view in views]
        array = network_input([view.prepared for view in ready], predictor.manifest.preprocessing)
        return _Batch(ready, array)

    def _prepared(self, view: _View) -> _View:
        if view.window == view.image.windows[-1]:
            return view
        pixels, predictor = view.image.read.pixels, self._predictor
        assert pixels is not None
        part = prepare(view.window.of(pixels), predictor.image_size, predictor.manifest.preprocessing)
        return replace(view, prepared=part)

    def rows(self, outputs: Outputs, number: int, view: _View) -> Float32Array:
        """Return the boxes of a view, in pixels of the view; boxes below the score of their class are left out."""
        rows = self._predictor.rows(outputs, number, view.prepared, self._thresholds)
        scores = self._class_scores
        if scores is None:
            return rows
        return rows[rows[:, 4] >= scores[rows[:, 5].astype(np.int64)]][: self._max_det]

    def finish(self, image: _Image) -> Prediction:
        """Return the prediction of an image whose views are done, after drawing its picture."""
        read, geometry = image.read, image.read.prepared.geometry
        width, height = geometry.image_width, geometry.image_height
        rows = [each.result() for each in image.rows]
        if len(rows) > 1:
            moved = [(window, window.moved(each)) for window, each in zip(image.windows, rows, strict=True)]
            rows = [merge(moved, width, height, self._iou, self._max_det)]
        prediction = Prediction(read.source, width, height, rows[0], read.notes)
        if self._painter is None or image.target is None or read.pixels is None:
            return prediction
        return _draw(self._painter, prediction, read.pixels, image.target)


def _draw(painter: Painter, prediction: Prediction, pixels: Pixels, target: Path) -> Prediction:
    """Draw and write a picture; an error becomes a note on the prediction."""
    try:
        written = write_picture(painter.draw(pixels, prediction.rows), target)
    except Exception as error:  # whatever fails while drawing or writing, the boxes are still valid
        reason = getattr(error, "strerror", None) or one_line(error, _LONGEST) or type(error).__name__
        return replace(prediction, notes=(*prediction.notes, Note(NOT_DRAWN, f"not drawn: {target}: {reason}")))
    notes = (Note(DRAWN_AS_PNG, written.note),) if written.note else ()
    return replace(prediction, notes=prediction.notes + notes, drawn=written.path)
