"""Darknet's ``.weights``: a header, then the values of each convolution in the order of the cfg file.

A convolution with batch normalization has beta, gamma, mean and variance, then its weights (out, in, kernel, kernel);
a convolution without it has its bias, then its weights. All values are float32, little-endian. The header has the
version as three int32, and the number of images seen: an int64 from version 0.2 on, an int32 before.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kubeyolo.errors import InputError
from kubeyolo.weights.stored_array import Content, StoredArray, WeightArray, as_float32

_VERSION = (0, 2, 5)
_ITEM = 4


@dataclass(frozen=True)
class DarknetConvolution:
    """One convolution in a cfg file.

    Attributes:
        name: Prefix of its arrays, such as ``layer000``.
        shape: Shape of its weights (out, in, kernel height, kernel width).
        batch_norm: Whether batch normalization follows it; if not, it has a bias.
        anchors: Number of anchors of the level if the convolution outputs predictions: ``out`` = anchors · (5 +
            classes). Else 0.
    """

    name: str
    shape: tuple[int, int, int, int]
    batch_norm: bool
    anchors: int = 0

    def arrays(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the name and shape of each of its arrays in the order of the file."""
        leaves = ("bn.bias", "bn.weight", "bn.running_mean", "bn.running_var") if self.batch_norm else ("conv.bias",)
        for leaf in leaves:
            yield f"{self.name}.{leaf}", self.shape[:1]
        yield f"{self.name}.conv.weight", self.shape

    @property
    def size(self) -> int:
        """Number of floats in the file."""
        return sum(math.prod(shape) for _, shape in self.arrays())

    def with_classes(self, num_classes: int) -> DarknetConvolution:
        """Return the convolution for a different number of classes."""
        if not self.anchors:
            return self
        return replace(self, shape=(self.anchors * (5 + num_classes), *self.shape[1:]))


def is_darknet(head: bytes, size: int) -> bool:
    """Tell from its first bytes and its length whether a file is a ``.weights`` file of a known version of darknet.

    Args:
        head: The first twelve bytes of the file, or more.
        size: The file's length in bytes.
    """
    if len(head) < 12 or size < 16:
        return False
    major, minor, revision = struct.unpack("<3i", head[:12])
    return major == 0 and minor in (1, 2) and 0 <= revision < 10


def darknet_classes(path: Path, convolutions: Sequence[DarknetConvolution]) -> int:
    """Return the number of classes for which a network has exactly as many weights as the file.

    Raises:
        InputError: No number of classes fits.
    """
    have = float_count(path)
    without = sum(convolution.with_classes(0).size for convolution in convolutions)
    each = sum(convolution.with_classes(1).size for convolution in convolutions) - without
    if each == 0 or have <= without or (have - without) % each:
        expected = sum(convolution.size for convolution in convolutions)
        shown = f"{expected} with {_classes_of(convolutions)} classes" if each else str(expected)
        cut = (
            "the file is cut off, or from a smaller network; give the whole file"
            if have <= without
            else "give the file"
        )
        raise InputError(
            f"{path}: has {have} weights, which do not fit any number of classes: the network has {shown}; "
            f"{cut} of this model, or --backbone for a file with only a backbone"
        )
    return (have - without) // each


def read_darknet(path: Path, convolutions: Sequence[DarknetConvolution], more: bool = False) -> dict[str, StoredArray]:
    """Return the arrays of a ``.weights`` file, unread, under names such as ``layer000.bn.running_mean``.

    Args:
        path: The file.
        convolutions: All convolutions in the order of the cfg file.
        more: Whether the file may have more weights at its end, as a file of a whole detector has after its backbone.

    Raises:
        InputError: The file does not have as many weights as the convolutions.
    """
    have, expected = float_count(path), sum(convolution.size for convolution in convolutions)
    if have < expected or (have > expected and not more):
        raise InputError(
            f"{path}: has {have} weights, but the network needs {expected}; give the weights file of this model"
        )
    arrays, offset = {}, _header_length(path)
    for convolution in convolutions:
        for name, shape in convolution.arrays():
            length = math.prod(shape) * _ITEM
            arrays[name] = StoredArray(Content(path, ((offset, length),)), "float32", shape)
            offset += length
    return arrays


def write_darknet(
    path: Path, convolutions: Sequence[DarknetConvolution], array_of: Callable[[str], WeightArray]
) -> None:
    """Write a ``.weights`` file.

    Args:
        path: The file.
        convolutions: All convolutions in the order of the cfg file.
        array_of: Returns the array for a name such as ``layer000.conv.weight``.
    """
    with path.open("wb") as file:
        file.write(struct.pack("<3iq", *_VERSION, 0))
        for convolution in convolutions:
            for name, _ in convolution.arrays():
                file.write(as_float32(array_of(name)).data)


def _header_length(path: Path) -> int:
    with path.open("rb") as file:
        head = file.read(12)
    if len(head) < 12:
        raise InputError(f"{path}: has {len(head)} bytes, fewer than the header of a .weights file; get the file again")
    major, minor, _ = struct.unpack("<3i", head)
    if not (0 <= major < 1000 and 0 <= minor < 1000):
        raise InputError(f"{path}: version {major}.{minor} is not a version of darknet; give a .weights file")
    return 20 if 10 * major + minor >= 2 else 16


def float_count(path: Path) -> int:
    """Return the number of weights, float32 values, in a ``.weights`` file.

    Raises:
        InputError: The file has no header of darknet, or is cut off within a value.
    """
    length = path.stat().st_size - _header_length(path)
    if length < 0 or length % _ITEM:
        raise InputError(
            f"{path}: {length} bytes after the header are not a whole number of float32 values: the file is "
            "cut off; get it again"
        )
    return length // _ITEM


def _classes_of(convolutions: Sequence[DarknetConvolution]) -> int:
    return next(layer.shape[0] // layer.anchors - 5 for layer in convolutions if layer.anchors)
