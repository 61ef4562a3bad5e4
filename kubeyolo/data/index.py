"""The index of one split: images and boxes as arrays, boxes grouped by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from kubeyolo.arrays import BoolArray, Float64Array, Int32Array, Int64Array, Pixels
from kubeyolo.errors import InputError, one_line
from kubeyolo.npz_file import read_npz

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
    "orientation": np.uint8,
}
_STORED = ("shard", "offset", "length", "orientation")
_TEXTS = ("file_name", "image_key", "image_facts")
_NAMES = frozenset([*_DTYPES, *_TEXTS])
_SHOWN = 200


@dataclass(frozen=True, eq=False)
class SplitIndex:
    """Images (I) and boxes (B) of a split.

    Images are ordered by file name, and the boxes of an image by their id, so that two annotation files with the
    same content give the same index. The boxes of image ``i`` are ``box_start[i]:box_start[i + 1]``.

    ``width``, ``height`` and ``box_xywh`` (left, top, width, height) are in pixels after ``orientation`` is applied,
    which is 1 to 8 as in EXIF; 1, or no array, means no rotation. ``box_class`` numbers the categories from 0 in the
    order of their ids; ``box_area`` is COCO's area in square pixels.
    ``shard``, ``offset`` and ``length`` (bytes) locate the image file once the split is stored.
    ``image_key`` has the ids of the images if they are texts in the annotations; ``image_id`` then numbers the images.
    ``image_facts`` has the values of the keys ``data.slice_keys`` of the images, a JSON object for each image.
    """

    image_id: Int64Array
    file_name: list[str]
    width: Int32Array
    height: Int32Array
    box_start: Int64Array
    box_id: Int64Array
    box_class: Int32Array
    box_xywh: Float64Array
    box_area: Float64Array
    box_crowd: BoolArray
    shard: Int32Array | None = None
    offset: Int64Array | None = None
    length: Int64Array | None = None
    image_key: list[str] | None = None
    orientation: Pixels | None = None
    image_facts: list[str] | None = None

    def __len__(self) -> int:
        return len(self.file_name)

    @property
    def boxes(self) -> int:
        """Number of boxes, crowd boxes included."""
        return len(self.box_id)

    def boxes_of(self, i: int) -> slice:
        """Return the range of the boxes of image ``i`` in the box arrays."""
        return slice(int(self.box_start[i]), int(self.box_start[i + 1]))

    def box_image(self) -> Int64Array:
        """Return the position of the image of each box (B,)."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.box_start))

    def with_images(self, size: Int64Array, orientation: Pixels) -> SplitIndex:
        """Return the index with new sizes (I, 2), as width and height, and EXIF orientations (I,) of the images.

        If the size of an image changes, its boxes are scaled too.
        """
        before = np.stack([self.width, self.height], 1)
        if (size <= 0).any():
            size = np.where(size > 0, size, before)
        rotated = self.with_orientation(orientation.tolist())
        if (size == before).all():
            return rotated
        ratio = (size / before)[self.box_image()]
        return replace(
            rotated,
            width=size[:, 0].astype(np.int32),
            height=size[:, 1].astype(np.int32),
            box_xywh=self.box_xywh * np.concatenate([ratio, ratio], 1),
            box_area=self.box_area * ratio.prod(1),
        )

    def select(self, images: BoolArray) -> SplitIndex:
        """Return the index of the images for which the mask (I,) is true, with their boxes."""
        if images.all():
            return self
        boxes = images[self.box_image()]
        counts = np.diff(self.box_start)[images]
        chosen: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _TEXTS and value is not None:
                chosen[field.name] = list(compress(value, images))
            elif field.name == "box_start":
                chosen[field.name] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
            elif value is not None:
                chosen[field.name] = value[boxes if field.name.startswith("box_") else images]
        return replace(self, **chosen)

    def orientation_of(self, i: int) -> int:
        """Return how the stored pixels of image ``i`` must be rotated, 1 to 8 as in EXIF; 1 does not change them."""
        return 1 if self.orientation is None else int(self.orientation[i])

    def with_orientation(self, orientation: Sequence[int]) -> SplitIndex:
        """Return the same index with the orientation of each image (I,); without the array if all are 1."""
        array = np.array(orientation, np.uint8)
        return replace(self, orientation=array if (array != 1).any() else None)

    def with_locations(self, shard: Sequence[int], offset: Sequence[int], length: Sequence[int]) -> SplitIndex:
        """Return the same index with the shard, offset and length of each image file (I,)."""
        return replace(
            self, shard=np.array(shard, np.int32), offset=np.array(offset, np.int64), length=np.array(length, np.int64)
        )

    def to_coco(self, classes: Sequence[str], category_ids: Sequence[int]) -> dict[str, Any]:
        """Return COCO ground truth with the original ids, as pycocotools expects it (no segmentations)."""
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
        # Fixed-width unicode arrays would pad every name to the length of the longest name.
        arrays["file_name"] = _packed(self.file_name)
        for name in ("image_key", "image_facts"):
            if getattr(self, name) is not None:
                arrays[name] = _packed(getattr(self, name))
        with path.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> SplitIndex:
        """Read an index written by :meth:`save`.

        Raises:
            InputError: The file is missing or is not an index.
        """
        try:
            arrays: dict[str, Any] = read_npz(path, _NAMES)
            for name in _TEXTS:
                if name in arrays and (arrays[name].dtype != np.uint8 or arrays[name].ndim != 1):
                    raise ValueError(f"{name} is not text")
            names = _unpacked(arrays.pop("file_name"))
            texts: dict[str, Any] = {
                name: _unpacked(arrays.pop(name)) for name in ("image_key", "image_facts") if name in arrays
            }
            index = cls(file_name=names, **texts, **arrays)
            index._check()
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = one_line(error, _SHOWN)
            raise InputError(f"{path}: not an index of a data set ({reason}); validate the data set again") from error
        return index

    def _check(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _TEXTS or (field.name in _STORED and value is None):
                continue
            if value.dtype != _DTYPES[field.name]:
                raise ValueError(f"{field.name} is {value.dtype}")
            if value.ndim != (2 if field.name == "box_xywh" else 1):
                raise ValueError(f"{field.name} has {value.ndim} axes")
        images, boxes = len(self.file_name), len(self.box_id)
        lengths = {name: len(getattr(self, name)) for name in ("image_id", "width", "height")}
        lengths |= {name: len(getattr(self, name)) for name in _STORED if getattr(self, name) is not None}
        texts = {"image_key": self.image_key, "image_facts": self.image_facts}
        lengths |= {name: len(values) for name, values in texts.items() if values is not None}
        if set(lengths.values()) != {images} or len(self.box_start) != images + 1:
            raise ValueError(f"arrays of {images} images have different lengths: {lengths}")
        box_lengths = {len(self.box_class), len(self.box_area), len(self.box_crowd)}
        if box_lengths != {boxes} or self.box_xywh.shape != (boxes, 4):
            raise ValueError(f"arrays of {boxes} boxes have different lengths")
        if self.orientation is not None and not ((self.orientation >= 1) & (self.orientation <= 8)).all():
            raise ValueError("an orientation is not 1 to 8")
        if not images:
            raise ValueError("there are no images")
        if self.box_start[0] != 0 or self.box_start[-1] != boxes or (np.diff(self.box_start) < 0).any():
            raise ValueError("box_start does not fit the number of boxes")


def _packed(texts: Sequence[str]) -> Pixels:
    return np.frombuffer("\0".join(texts).encode(), np.uint8)


def _unpacked(array: Pixels) -> list[str]:
    text = array.tobytes().decode()
    return text.split("\0") if text else []
