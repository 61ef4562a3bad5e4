"""Images that show a quantizer what values flow through a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kubeyolo.arrays import Float32Array
from kubeyolo.bundle import BundleManifest
from kubeyolo.evaluation.preprocess import network_input, prepare

if TYPE_CHECKING:
    from kubeyolo.data.dataset import Split


class CalibrationImages(Sequence[Float32Array]):
    """Images of a split, drawn without replacement and letterboxed as for detection, read when asked for.

    Items are (1, 3, H, W) float32 in 0..1. A split with fewer images than wanted gives all it has.

    Args:
        split: The training images.
        manifest: Of the bundle: image size and preprocessing.
        count: Images wanted.
        seed: Of the draw.
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
