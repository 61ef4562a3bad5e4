"""Finds images that are copies of each other: identical files, or images that look nearly the same.

A perceptual hash finds pairs that may look alike, and small grey copies of both images confirm them. The hash consists
of the signs of low frequencies of the discrete cosine transform, which survive JPEG compression, resizing, a change of
brightness and cropping by a few pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from kubeyolo.arrays import BoolArray, Float32Array, Int64Array, Pixels
from kubeyolo.data.findings import Findings

Hashes = NDArray[np.uint64]

DISTANCE = 8
"""Hashes of near copies differ in at most this number of their 64 bits."""

TRAIN = "train"

_SIDE = 32
_THUMBNAIL = 16
_SAMPLED = 128
_FLAT = 4.0
"""An image whose grey values have a smaller standard deviation has too little contrast to be compared."""

# Measured on photographs, microscope images and drawings: copies that were compressed, resized or brightened by 10 %
# are mostly below 0.12, copies cropped by 2 % on each side below 0.22; different images are above 0.25.
_SAME = 0.22
"""Largest mean difference of the grey values of near copies, divided by the standard deviation of the image."""

_BLOCK = 1 << 20
_MOST_COMPARED = 1000
_ONES = np.array([bin(value).count("1") for value in range(1 << 16)], np.uint8)


def small_grey(pixels: Pixels) -> Pixels | None:
    """Return a grey copy (32, 32) of an image (H, W, 3) RGB, None if it has too little contrast to be compared."""
    # Averages over a sample of the pixels are good enough, and take a tenth of the time.
    few = cv2.resize(pixels, (_SAMPLED, _SAMPLED), interpolation=cv2.INTER_NEAREST)
    small = cv2.resize(cv2.cvtColor(few, cv2.COLOR_RGB2GRAY), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8) if cv2.meanStdDev(small)[1][0, 0] >= _FLAT else None


def perceptual_hash(small: Pixels) -> int:
    """Return the hash of a grey copy (32, 32), 64 bits."""
    waves = cv2.dct(small.astype(np.float32))[:9, :9].ravel()[1:65]
    return int.from_bytes(np.packbits(waves > 0).tobytes(), "big")


def thumbnail(small: Pixels) -> bytes:
    """Return 16 x 16 grey values of a grey copy (32, 32), which confirm that two images look alike."""
    return bytes(cv2.resize(small, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA).tobytes())


def near_pairs(
    hashes_a: Hashes, hashes_b: Hashes, wanted: BoolArray, distance: int = DISTANCE
) -> Iterator[tuple[Int64Array, Int64Array]]:
    """Yield blocks of pairs whose hashes differ in at most ``distance`` bits, as positions in both arrays.

    Two such hashes agree in at least one of ``distance`` + 1 parts (Manku, Jain and Das Sarma, "Detecting
    near-duplicates for web crawling", 2007), so only pairs that agree in a part are compared. A pair may be yielded
    more than once.

    Args:
        hashes_a: (A,) hashes.
        hashes_b: (B,) hashes.
        wanted: (B,) whether pairs with each of ``hashes_b`` are still needed; the caller may change it between blocks.
        distance: The largest number of bits in which the hashes of a pair may differ.
    """
    edges = np.linspace(0, 64, distance + 2).astype(np.uint64)
    for low, high in pairwise(edges):
        mask = np.uint64((1 << int(high - low)) - 1)
        part_a, part_b = hashes_a >> low & mask, hashes_b >> low & mask
        order = np.argsort(part_a, kind="stable")
        ordered = part_a[order]
        open_b = np.flatnonzero(wanted)
        first = np.searchsorted(ordered, part_b[open_b], "left")
        counts = np.searchsorted(ordered, part_b[open_b], "right") - first
        blocks = np.concatenate([[0], np.cumsum(counts)]) // _BLOCK
        for rows in np.split(np.arange(len(open_b)), np.flatnonzero(np.diff(blocks[:-1])) + 1):
            rows = rows[wanted[open_b[rows]]]
            some = counts[rows]
            within = np.arange(some.sum()) - np.repeat(np.cumsum(some) - some, some)
            a = order[np.repeat(first[rows], some) + within]
            b = np.repeat(open_b[rows], some)
            near = _differing_bits(hashes_a[a], hashes_b[b]) <= distance
            if near.any():
                yield a[near], b[near]


def _differing_bits(a: Hashes, b: Hashes) -> Pixels:
    parts = np.ascontiguousarray(a ^ b).view(np.uint16).reshape(-1, 4)
    return np.asarray(_ONES[parts].sum(axis=1, dtype=np.uint8))


class ComparedImage(NamedTuple):
    """The data of an image for comparisons: file name, sha256, perceptual hash, thumbnail.

    The thumbnail is empty if the image has too little contrast to be compared.
    """

    name: str
    sha256: str
    hash: int
    thumbnail: bytes


def find_copies(splits: Mapping[str, Sequence[ComparedImage]], findings: Findings) -> None:
    """Add findings about copies within a split, and about copies or near copies of images of train in other splits."""
    train = splits.get(TRAIN, ())
    trained = _by_sha256(train)
    for split, images in splits.items():
        _find_twice(split, images, findings)
        if split != TRAIN:
            leaks = [image for image in images if image.sha256 in trained]
            if leaks:
                first = f"{split}: {leaks[0].name!r} is the same as {trained[leaks[0].sha256].name!r} of train"
                findings.add("leak", first, len(leaks))
            _find_near(split, [image for image in images if image.sha256 not in trained], train, findings)


def _by_sha256(images: Sequence[ComparedImage]) -> dict[str, ComparedImage]:
    """Return for each sha256 the first image that has it."""
    return {image.sha256: image for image in reversed(images)}


def _find_twice(split: str, images: Sequence[ComparedImage], findings: Findings) -> None:
    first = _by_sha256(images)
    twice = [image for image in images if first[image.sha256] is not image]
    if twice:
        same = first[twice[0].sha256]
        findings.add("image_twice", f"{split}: {twice[0].name!r} is the same as {same.name!r}", len(twice))


def _find_near(split: str, images: Sequence[ComparedImage], train: Sequence[ComparedImage], findings: Findings) -> None:
    """Add a finding about the images of a split that nearly equal an image of train."""
    images, train = ([image for image in each if image.thumbnail] for each in (images, train))
    if not images or not train:
        return
    hashes = [np.array([image.hash for image in each], np.uint64) for each in (train, images)]
    trained, others = _greys(train), _greys(images)
    wanted = np.ones(len(images), np.bool_)
    near: dict[int, int] = {}
    for a, b in near_pairs(hashes[0], hashes[1], wanted):
        compared = np.arange(len(b)) - np.searchsorted(b, b) < _MOST_COMPARED
        # Comparing an image with thousands of similar images would take minutes: the first of them are enough.
        wanted[b[~compared]] = False
        a, b = a[compared], b[compared]
        alike = _look_alike(trained[a], others[b])
        for one, other in zip(a[alike].tolist(), b[alike].tolist(), strict=True):
            near.setdefault(other, one)
            wanted[other] = False
    findings.add_cases(
        "near_leak",
        sorted(near),
        lambda i: f"{split}: {images[i].name!r} nearly equals {train[near[i]].name!r} of train",
    )


def _greys(images: Sequence[ComparedImage]) -> Pixels:
    return np.frombuffer(b"".join(image.thumbnail for image in images), np.uint8).reshape(len(images), -1)


def _look_alike(one: Pixels, other: Pixels) -> BoolArray:
    """Return for each row whether the two thumbnails differ little, relative to their contrast."""
    same = np.empty(len(one), np.bool_)
    for start in range(0, len(one), _BLOCK >> 8):
        part = slice(start, start + (_BLOCK >> 8))
        same[part] = _differ_little(one[part].astype(np.float32), other[part].astype(np.float32))
    return same


def _differ_little(one: Float32Array, other: Float32Array) -> BoolArray:
    one -= one.mean(axis=1, keepdims=True)
    other -= other.mean(axis=1, keepdims=True)
    contrast = np.maximum(one.std(axis=1), other.std(axis=1))
    return np.asarray(np.abs(one - other).mean(axis=1) <= _SAME * contrast)
