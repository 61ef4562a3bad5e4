"""Images that are copies of each other: of the same bytes, or nearly the same to the eye.

A perceptual hash finds pairs that may look alike, small grey copies of both images confirm them. The hash holds the
signs of low frequencies of the discrete cosine transform, which survive JPEG compression, resizing, a change of
brightness and a cut of a few pixels at the border.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from kubeyolo.arrays import BoolArray, Float32Array, Int64Array, Pixels
from kubeyolo.data.findings import Findings

Hashes = NDArray[np.uint64]

DISTANCE = 8
"""Hashes of near copies differ in at most so many of 64 bits."""

TRAIN = "train"

_SIDE = 32
_THUMBNAIL = 16
_SAMPLED = 128
_FLAT = 4.0
"""Below this standard deviation of its grey values an image shows too little to be compared."""

# Measured on photographs, microscope images and drawings: copies that were compressed, resized or brightened by 10 %
# stay mostly below 0.12, those cut by 2 % on each side below 0.22; different images are above 0.25.
_SAME = 0.22
"""Largest mean difference of the grey values of near copies, over the standard deviation of the image."""

_BLOCK = 1 << 20
_MOST_COMPARED = 1000
_ONES = np.array([bin(value).count("1") for value in range(1 << 16)], np.uint8)


def small_grey(pixels: Pixels) -> Pixels | None:
    """Return a grey copy (32, 32) of an image (H, W, 3) RGB, None where it shows too little to be compared."""
    # Averages over a part of the pixels are as good, and take a tenth of the time.
    few = cv2.resize(pixels, (_SAMPLED, _SAMPLED), interpolation=cv2.INTER_NEAREST)
    small = cv2.resize(cv2.cvtColor(few, cv2.COLOR_RGB2GRAY), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8) if cv2.meanStdDev(small)[1][0, 0] >= _FLAT else None


def perceptual_hash(small: Pixels) -> int:
    """Return 64 bits of a grey copy (32, 32)."""
    waves = cv2.dct(small.astype(np.float32))[:9, :9].ravel()[1:65]
    return int.from_bytes(np.packbits(waves > 0).tobytes(), "big")


def thumbnail(small: Pixels) -> bytes:
    """Return the 256 bytes of a grey copy (32, 32) that confirm a likeness."""
    return bytes(cv2.resize(small, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA).tobytes())


def near_pairs(
    hashes_a: Hashes, hashes_b: Hashes, distance: int = DISTANCE, wanted: BoolArray | None = None
) -> Iterator[tuple[Int64Array, Int64Array]]:
    """Yield the pairs whose hashes differ in at most ``distance`` bits, in blocks: positions in a, positions in b.

    Of two such hashes at least one of ``distance`` + 1 parts is equal (Manku, Jain and Das Sarma, "Detecting
    near-duplicates for web crawling", 2007), so only those with an equal part are compared. A pair may be yielded more
    than once.

    Args:
        hashes_a: (A,) hashes.
        hashes_b: (B,) hashes.
        distance: Most bits that differ.
        wanted: (B,) of which b pairs are still wanted; the caller may change it between blocks.
    """
    edges = np.linspace(0, 64, distance + 2).astype(np.uint64)
    for low, high in zip(edges, edges[1:], strict=False):
        mask = np.uint64((1 << int(high - low)) - 1)
        part_a, part_b = hashes_a >> low & mask, hashes_b >> low & mask
        order = np.argsort(part_a, kind="stable")
        ordered = part_a[order]
        open_b = np.arange(len(hashes_b)) if wanted is None else np.flatnonzero(wanted)
        first = np.searchsorted(ordered, part_b[open_b], "left")
        counts = np.searchsorted(ordered, part_b[open_b], "right") - first
        blocks = np.concatenate([[0], np.cumsum(counts)]) // _BLOCK
        for rows in np.split(np.arange(len(open_b)), np.flatnonzero(np.diff(blocks[:-1])) + 1):
            rows = rows if wanted is None else rows[wanted[open_b[rows]]]
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


class Copies:
    """Collects the images of all splits and finds those that are copies of others."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}
        self._sha256: dict[str, list[str]] = {}
        self._hashes: dict[str, list[int]] = {}
        self._thumbnails: dict[str, list[bytes]] = {}

    def add(self, split: str, name: str, sha256: str, hash: int, thumbnail: bytes) -> None:
        """Add an image: the sha256 of its file, its hash, and its thumbnail, which is empty if it shows too little."""
        self._names.setdefault(split, []).append(name)
        self._sha256.setdefault(split, []).append(sha256)
        self._hashes.setdefault(split, []).append(hash)
        self._thumbnails.setdefault(split, []).append(thumbnail)

    def findings(self, found: Findings) -> None:
        """Add to the findings: images twice in a split, and images of other splits that train has too, or nearly."""
        seen = {split: self._first_of(split) for split in self._names}
        for split, digests in self._sha256.items():
            twice = [i for i, sha256 in enumerate(digests) if seen[split][sha256] != i]
            if twice:
                name, same = self._names[split][twice[0]], self._names[split][seen[split][digests[twice[0]]]]
                found.add("image_twice", f"{split}: {name!r} is the same as {same!r}", len(twice))
        for split in self._names:
            if split != TRAIN and TRAIN in self._names:
                leaks = [i for i, sha256 in enumerate(self._sha256[split]) if sha256 in seen[TRAIN]]
                if leaks:
                    same = self._names[TRAIN][seen[TRAIN][self._sha256[split][leaks[0]]]]
                    first = f"{split}: {self._names[split][leaks[0]]!r} is {same!r} of train"
                    found.add("leak", first, len(leaks))
                near = self._near(split, set(leaks))
                if near:
                    i = min(near)
                    first = f"{split}: {self._names[split][i]!r} nearly equals {self._names[TRAIN][near[i]]!r} of train"
                    found.add("near_leak", first, len(near))

    def _first_of(self, split: str) -> dict[str, int]:
        """Return by sha256 the first image that has it."""
        first: dict[str, int] = {}
        for i, sha256 in enumerate(self._sha256[split]):
            first.setdefault(sha256, i)
        return first

    def _near(self, split: str, leaks: set[int]) -> dict[int, int]:
        """Return the images of a split that nearly equal one of train, and that one."""
        train, rows = self._comparable(TRAIN, set()), self._comparable(split, leaks)
        if not len(train) or not len(rows):
            return {}
        hashes = [np.array(self._hashes[name], np.uint64) for name in (TRAIN, split)]
        wanted = np.ones(len(rows), np.bool_)
        near: dict[int, int] = {}
        trained, others = _greys(self._thumbnails[TRAIN], train), _greys(self._thumbnails[split], rows)
        for a, b in near_pairs(hashes[0][train], hashes[1][rows], DISTANCE, wanted):
            compared = np.arange(len(b)) - np.searchsorted(b, b) < _MOST_COMPARED
            # Where so many are alike that more would take minutes, those compared have to do.
            wanted[b[~compared]] = False
            a, b = a[compared], b[compared]
            alike = _look_alike(trained[a], others[b])
            for one, other in zip(a[alike].tolist(), b[alike].tolist(), strict=True):
                near.setdefault(int(rows[other]), int(train[one]))
                wanted[other] = False
        return near

    def _comparable(self, split: str, without: set[int]) -> Int64Array:
        return np.array([i for i, grey in enumerate(self._thumbnails[split]) if grey and i not in without], np.int64)


def _greys(thumbnails: list[bytes], rows: Int64Array) -> Pixels:
    joined = b"".join(thumbnails[i] for i in rows.tolist())
    return np.frombuffer(joined, np.uint8).reshape(len(rows), -1)


def _look_alike(one: Pixels, other: Pixels) -> BoolArray:
    """Return which rows differ little from each other, compared with how much they differ from plain grey."""
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
