"""A detector that answers requests: encoded images in, arrays of boxes out, whatever the server and the protocol."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kubeyolo.arrays import Float32Array, Int64Array
from kubeyolo.bundle import Bundle, open_bundle
from kubeyolo.data.decode import decode_file
from kubeyolo.data.headers import ImageFault
from kubeyolo.errors import InputError
from kubeyolo.evaluation.predictor import Predictor, Prepared, Thresholds, detect_prepared, load_predictor, prepare
from kubeyolo.evaluation.results import RuntimeName
from kubeyolo.pointers import pointed_bundle
from kubeyolo.storage.place import Place

MOST_IMAGES = 64
"""Largest number of images in a request."""

MOST_BYTES = 64 * 1024 * 1024
"""Largest size of an encoded image."""


@dataclass(frozen=True)
class FoundBoxes:
    """The boxes of the images of a request: of the first image, best first, then of the second, and so on.

    Attributes:
        images: Number of the image in the request, from 0 (k,).
        boxes: x1, y1, x2, y2 in pixels of the image as a viewer shows it (k, 4).
        scores: Scores in 0..1 (k,).
        classes: Names of the classes (k,).
    """

    images: Int64Array
    boxes: Float32Array
    scores: Float32Array
    classes: tuple[str, ...]


class ServedDetector:
    """The ONNX or int8 network of a bundle, ready for requests; several threads may call it."""

    def __init__(self, bundle: Bundle, runtime: RuntimeName = "onnx", thresholds: Thresholds | None = None) -> None:
        """Load the network of a bundle.

        Args:
            bundle: The bundle.
            runtime: ``onnx`` or ``int8``.
            thresholds: Limits on the boxes of requests that name none.

        Raises:
            InputError: The bundle has no such network, or it cannot be loaded.
        """
        self.bundle = bundle
        self.thresholds = thresholds or Thresholds()
        self._predictor: Predictor = load_predictor(bundle, runtime, batch_size=1)

    @classmethod
    def of(cls, text: str, runtime: RuntimeName = "onnx") -> ServedDetector:
        """Load the network of a bundle by its URI or reference, or by the URI of a pointer to the current model.

        Raises:
            InputError: There is no such bundle, it is damaged, or it has no such network.
        """
        return cls(open_bundle(pointed_bundle(Place.of(text))), runtime)

    def detect(self, images: Sequence[bytes | str], conf: float | None = None, iou: float | None = None) -> FoundBoxes:
        """Find objects in encoded images, such as JPEG or PNG.

        Args:
            images: The content of an image file each, or its base64 text.
            conf: Lowest score of a box; by default that of the detector.
            iou: IoU above which the box with the lower score is dropped; by default that of the detector.

        Raises:
            InputError: There are no or too many images, one cannot be decoded, or a threshold is not in its range.
        """
        if not 0 < len(images) <= MOST_IMAGES:
            raise InputError(f"{len(images)} images in a request; send 1 to {MOST_IMAGES}")
        limits = replace(
            self.thresholds,
            conf=_in_range("conf_threshold", self.thresholds.conf if conf is None else conf),
            iou=_in_range("iou_threshold", self.thresholds.iou if iou is None else iou),
        )
        prepared = [self._prepared(number, image) for number, image in enumerate(images)]
        rows = detect_prepared(self._predictor, prepared, limits)
        found = np.concatenate(rows)
        names = self.bundle.manifest.classes
        return FoundBoxes(
            images=np.repeat(np.arange(len(rows)), [len(each) for each in rows]),
            boxes=np.ascontiguousarray(found[:, :4]),
            scores=np.ascontiguousarray(found[:, 4]),
            classes=tuple(names[int(number)] for number in found[:, 5]),
        )

    def _prepared(self, number: int, image: bytes | str) -> Prepared:
        preprocessing = self._predictor.manifest.preprocessing
        try:
            decoded = decode_file(_content(image), preprocessing.levels)
        except (ImageFault, ValueError) as error:
            raise InputError(f"image {number} of the request {error}; send the content of an image file") from error
        return prepare(decoded.pixels, self._predictor.image_size, preprocessing)


def _content(image: bytes | str) -> bytes:
    """Return the content of an image file.

    Raises:
        ValueError: The text is not base64, or the content is too large.
    """
    try:
        content = base64.b64decode(image, validate=True) if isinstance(image, str) else image
    except ValueError as error:
        raise ValueError("is not base64") from error
    if len(content) > MOST_BYTES:
        raise ValueError(f"has more than {MOST_BYTES} bytes")
    return content


def _in_range(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise InputError(f"{name} = {value!r}: expected a number from 0 to 1")
    return float(value)
