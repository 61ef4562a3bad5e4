"""Calibration: the images that are drawn for it, and the ranges of a network's activations on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import create_calibrator

from kubeyolo.arrays import Float32Array, Pixels
from kubeyolo.bundle import BundleManifest
from kubeyolo.errors import InputError
from kubeyolo.evaluation.predictor import network_input, prepare
from kubeyolo.evaluation.runtimes import INPUT_NAME
from kubeyolo.formats import counted
from kubeyolo.progress import Progress
from kubeyolo.quantization.qdq import QUANTIZED_OPERATORS, Range
from kubeyolo.storage.workspace import temporary_folder

if TYPE_CHECKING:
    from kubeyolo.data.dataset import Split

Calibration = Literal["minmax", "entropy", "percentile"]
_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
PERCENTILE = 99.999
CHUNK = 4
LEAST_IMAGES = 16
"""Number of calibration images below which ranges depend on the choice of the images."""

_FLAT = 3.0
"""Standard deviation of the levels of an image, 0 to 255, below which it shows nothing."""
_GREY = 2
"""Largest difference of the channels of a pixel, 0 to 255, in a grey image."""


class CalibrationImages(Sequence[Float32Array]):
    """Images of a split, drawn without replacement, letterboxed as for detection, and read on access.

    Items are (1, 3, H, W) float32 in 0..1. If a split has fewer images than ``count``, all images are used.

    Args:
        split: The training images.
        manifest: Manifest of the bundle, with image size and preprocessing.
        count: Number of images.
        seed: Seed of the draw.
    """

    def __init__(self, split: Split, manifest: BundleManifest, count: int, seed: int = 0) -> None:
        total = len(split.index)
        drawn = np.random.default_rng(seed).choice(total, min(count, total), replace=False)
        self._numbers: list[int] = sorted(drawn.tolist())
        self._split = split
        self._manifest = manifest

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, item: int) -> Float32Array:  # type: ignore[override]  # slices are not needed
        image = self._split.read_image(self._numbers[item])
        preprocessing = self._manifest.preprocessing
        return network_input([prepare(image, self._manifest.image_size, preprocessing)], preprocessing)

    def __iter__(self) -> Iterator[Float32Array]:
        return (self[number] for number in range(len(self)))

    def originals(self) -> Iterator[Pixels]:
        """Return the images as they are stored, (h, w, 3) uint8 RGB."""
        return (self._split.read_image(number) for number in self._numbers)


@dataclass(frozen=True)
class CalibrationSet:
    """Numbers of calibration images, by kind.

    Attributes:
        images: Number of images.
        flat: Number of images of a single colour, or nearly so; ranges on them are too small.
        grey: Number of other images without colour.
    """

    images: int
    flat: int = 0
    grey: int = 0

    @property
    def warnings(self) -> list[str]:
        """Sentences about images that are few, flat or grey; empty if there are none."""
        of, lines = counted(self.images, "calibration image"), []
        if self.images < LEAST_IMAGES:
            lines.append(
                f"only {of}: the ranges of int8 depend on which images these are; use at least {LEAST_IMAGES} "
                "(quantize.calibration_images, and images in the split train)"
            )
        if self.flat:
            lines.append(
                f"{self.flat} of {of} {'is' if self.flat == 1 else 'are'} flat (of a single colour): they tell "
                "nothing about the ranges of int8; look at the images of the split train"
            )
        if self.grey:
            lines.append(
                f"{self.grey} of {of} {'is' if self.grey == 1 else 'are'} grey: the ranges of int8 may be too small "
                "for images in colour; calibrate with images like those that the network will see"
            )
        return lines


def count_kinds(images: CalibrationImages) -> CalibrationSet:
    """Count the calibration images, and the flat and the grey images among them."""
    flat = grey = 0
    for pixels in images.originals():
        if float(pixels.std(axis=(0, 1)).max()) < _FLAT:
            flat += 1
        elif int(np.ptp(pixels, axis=2).max()) <= _GREY:
            grey += 1
    return CalibrationSet(len(images), flat, grey)


def calibrate(
    model: onnx.ModelProto, name: str, images: Sequence[Float32Array], calibration: Calibration = "minmax"
) -> dict[str, Range]:
    """Return the range of each activation of a float model on images, by the name of the activation.

    Args:
        model: The float model, see :func:`kubeyolo.quantization.qdq.read_float_model`.
        name: Name of its file, for the progress.
        images: Letterboxed training images, each (1, 3, H, W) float32 in 0..1.
        calibration: How to choose the ranges: by the extremes, by the least KL divergence, or by the 99.999th
            percentile.

    Raises:
        InputError: There are no images, or the calibration is unknown.
        ValueError: onnxruntime cannot run the model. It also raises RuntimeError and TypeError.
    """
    if not len(images):
        raise InputError("no calibration images; quantize.calibration_images and the train split must not be empty")
    if calibration not in _METHODS:
        raise InputError(f"unknown calibration {calibration!r}; known: {', '.join(_METHODS)}")
    operators = sorted({operator for each in QUANTIZED_OPERATORS.values() for operator in each})
    # The histogram calibrators print their progress.
    with (
        temporary_folder("calibration") as folder,
        Progress(f"calibrating {name}", len(images)) as progress,
        redirect_stdout(StringIO()),
    ):
        onnx.save(model, str(folder / "model.onnx"))
        calibrator = create_calibrator(
            folder / "model.onnx",
            operators,
            augmented_model_path=str(folder / "augmented.onnx"),
            calibrate_method=_METHODS[calibration],
            extra_options={"percentile": PERCENTILE},
        )
        reader, chunk = _Reader(images, progress), _divisor(len(images), CHUNK)
        for start in range(0, len(images), chunk):
            reader.set_range(start, start + chunk)
            calibrator.collect_data(reader)
        found = calibrator.compute_data()
    ranges = {tensor: data.range_value for tensor, data in found.items()}
    return {tensor: (float(np.min(low)), float(np.max(high))) for tensor, (low, high) in ranges.items()}


def _divisor(total: int, most: int) -> int:
    """Return the largest divisor of ``total`` up to ``most``: onnxruntime needs chunks of equal size."""
    return next(size for size in range(min(most, total), 0, -1) if total % size == 0)


class _Reader(CalibrationDataReader):
    """Passes the images to onnxruntime in chunks, which limit the memory for histograms."""

    def __init__(self, images: Sequence[Float32Array], progress: Progress) -> None:
        self._images = images
        self._progress = progress
        self.set_range(0, len(images))

    def __len__(self) -> int:
        return len(self._images)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Start again at an image, and stop before the image at ``end_index``."""
        self._rest = iter(range(start_index, end_index))

    def get_next(self) -> dict[str, Float32Array] | None:
        """Return the next image by the name of the network's input, or None after the last image."""
        number = next(self._rest, None)
        if number is None:
            return None
        self._progress.advance()
        return {INPUT_NAME: self._images[number]}
