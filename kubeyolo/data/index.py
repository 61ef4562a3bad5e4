"""The index of one split: images and boxes as arrays, boxes grouped by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from kubeyolo.errors import InputError

_DTYPES: dict[str, Any] = {
    "image_id": np.int64,
    "width": np.int32,
    "height": np.int32,
    "box_start": np.int64,
    "box_id": np.int64,
    "box_class": np.int32,
    "box_xywh": np.float64,
    "box_area": np.float64,
    "box_crowd": np.bool_,
    "shard": np.int32,
    "offset": np.int64,
    "length": np.int64,
}
_STORED = ("shard", "offset", "length")


@dataclass(frozen=True, eq=False)
class SplitIndex:
    """Images (I) and boxes (B) of a split.

    Images are ordered by file name and the boxes of an image by their id, so that two annotation files with the
    same content give the same index. The boxes of image ``i`` are ``box_start[i]:box_start[i + 1]``.

    ``box_xywh`` holds left, top, width, height in pixels of the image as stored (EXIF orientation is ignored);
    ``box_class`` counts the categories, ordered by their id, from 0; ``box_area`` is COCO's area in square pixels.
    ``shard``, ``offset`` and ``length`` (bytes) say where the image file lies once the split is stored.
    """

    image_id: NDArray[np.int64]
    file_name: list[str]
    width: NDArray[np.int32]
    height: NDArray[np.int32]
    box_start: NDArray[np.int64]
    box_id: NDArray[np.int64]
    box_class: NDArray[np.int32]
    box_xywh: NDArray[np.float64]
    box_area: NDArray[np.float64]
    box_crowd: NDArray[np.bool_]
    shard: NDArray[np.int32] | None = None
    offset: NDArray[np.int64] | None = None
    length: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.file_name)

    @property
    def boxes(self) -> int:
        """Number of boxes, crowd boxes included."""
        return len(self.box_id)

    def boxes_of(self, i: int) -> slice:
        """Return the range of the boxes of image ``i`` in the box arrays."""
        return slice(int(self.box_start[i]), int(self.box_start[i + 1]))

    def box_image(self) -> NDArray[np.int64]:
        """Return for each box (B,) the position of its image."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.box_start))

    def stored(self, shard: Sequence[int], offset: Sequence[int], length: Sequence[int]) -> SplitIndex:
        """Return the same index with the place of each image file (I,) in the shards."""
        return replace(
            self,
            shard=np.array(shard, np.int32),
            offset=np.array(offset, np.int64),
            length=np.array(length, np.int64),
        )

    def to_coco(self, classes: Sequence[str], category_ids: Sequence[int]) -> dict[str, Any]:
        """Return COCO ground truth with the original ids, as pycocotools wants it (no segmentations)."""
        image_of_box = self.image_id[self.box_image()].tolist()
        images = [
            {"id": image_id, "file_name": name, "width": width, "height": height}
            for image_id, name, width, height in zip(
                self.image_id.tolist(), self.file_name, self.width.tolist(), self.height.tolist(), strict=True
            )
        ]
        annotations = [
            {"id": box_id, "image_id": image, "category_id": category_ids[c], "bbox": xywh, "area": area, "iscrowd": k}
            for box_id, image, c, xywh, area, k in zip(
                self.box_id.tolist(),
                image_of_box,
                self.box_class.tolist(),
                self.box_xywh.tolist(),
                self.box_area.tolist(),
                self.box_crowd.astype(int).tolist(),
                strict=True,
            )
        ]
        categories = [{"id": i, "name": name} for i, name in zip(category_ids, classes, strict=True)]
        return {"info": {}, "images": images, "annotations": annotations, "categories": categories}

    def save(self, path: Path) -> None:
        """Write the index as npz; equal indices give equal bytes."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _DTYPES if getattr(self, name) is not None}
        # Fixed-width unicode arrays would pad every name to the longest one.
        arrays["file_name"] = np.frombuffer("\0".join(self.file_name).encode(), np.uint8)
        with path.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> SplitIndex:
        """Read an index written by :meth:`save`.

        Raises:
            InputError: The file is missing or not such an index.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            names = arrays.pop("file_name").tobytes().decode()
            index = cls(file_name=names.split("\0") if names else [], **arrays)
            index._check()
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise InputError(f"{path}: not an index of a data set ({error}); validate the data set again") from error
        return index

    def _check(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "file_name" or (field.name in _STORED and value is None):
                continue
            if value.dtype != _DTYPES[field.name]:
                raise ValueError(f"{field.name} is {value.dtype}")
        images, boxes = len(self.file_name), len(self.box_id)
        lengths = {name: len(getattr(self, name)) for name in ("image_id", "width", "height")}
        lengths |= {name: len(getattr(self, name)) for name in _STORED if getattr(self, name) is not None}
        if set(lengths.values()) != {images} or len(self.box_start) != images + 1:
            raise ValueError(f"arrays of {images} images have other lengths: {lengths}")
        if {len(self.box_class), len(self.box_area), len(self.box_crowd)} != {boxes} or self.box_xywh.shape != (
            boxes,
            4,
        ):
            raise ValueError(f"arrays of {boxes} boxes have other lengths")
        if self.box_start[0] != 0 or self.box_start[-1] != boxes or (np.diff(self.box_start) < 0).any():
            raise ValueError("box_start does not count the boxes")
