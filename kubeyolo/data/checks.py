"""Reads and decodes every image of a split once, in parallel, and compares its size with the annotations."""

from __future__ import annotations

import hashlib
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kubeyolo.data.decode import Levels, Note, checked_header, decode_stored
from kubeyolo.data.duplicates import perceptual_hash, small_grey, thumbnail
from kubeyolo.data.headers import Header, ImageFault, read_image_file
from kubeyolo.resources import usable_processors

OnProgress = Callable[[str, int, int], None]
"""Called with a description of the work, the number of images done so far, and the total number of images."""

FaultCode = Literal["", "image_missing", "image_damaged", "size_differs", "size_scaled"]
Size = tuple[int, int]
_SAME_SHAPE = 0.01
"""If the ratios of widths and of heights differ by less, one image is a resized copy of the other."""

_CUT = 0.05
"""If a side differs by a smaller share, the image was cropped, not resized."""


@dataclass(frozen=True)
class CheckedImage:
    """An image file and the result of its check.

    Attributes:
        data: The content of the file; empty if it cannot be read.
        sha256: The sha256 of the file.
        width: Width in pixels after ``orientation`` is applied; 0 if unknown.
        height: Height in pixels after ``orientation`` is applied; 0 if unknown.
        orientation: How the stored pixels must be rotated or mirrored, 1 to 8 as in EXIF; 1 does not change them.
        notes: Notes on the image, such as "page 1 of 3".
        hash: 64 bits that are nearly the same for images that look the same; 0 for images with too little contrast.
        thumbnail: Grey values that confirm a match of hashes; empty for images with too little contrast.
        fault: Why the image cannot be used, as words that follow its name; empty if it can be used.
        fault_code: The code of the fault, a key of :data:`kubeyolo.data.finding_kinds.KINDS`; empty without a fault.
    """

    data: bytes
    sha256: str
    width: int = 0
    height: int = 0
    orientation: int = 1
    notes: tuple[Note, ...] = ()
    hash: int = 0
    thumbnail: bytes = b""
    fault: str = ""
    fault_code: FaultCode = ""


def check_images(
    paths: Sequence[Path],
    sizes: Sequence[Size | None],
    *,
    apply_orientation: bool = True,
    levels: Levels | None = None,
    compare: bool = True,
    threads: int | None = None,
) -> Iterator[CheckedImage]:
    """Read and decode images in threads, and yield the results in the order of ``paths``.

    Only a limited number of files is in memory at a time.

    Args:
        paths: The image files.
        sizes: Annotated width and height of each image; None if the annotations have no size.
        apply_orientation: Whether to apply EXIF orientations, unless the annotated size is the size before rotation.
        levels: The values that become 0 and 255, for samples of more than 8 bits.
        compare: Whether to compute the hash and the thumbnail, with which near copies are found.
        threads: Number of threads; by default the number of processors, at most 8.
    """
    number = threads or min(8, usable_processors())
    pending: deque[Future[CheckedImage]] = deque()
    with ThreadPoolExecutor(number, thread_name_prefix="kubeyolo-check") as pool:
        try:
            for path, size in zip(paths, sizes, strict=True):
                pending.append(pool.submit(_read, path, size, apply_orientation, levels, compare))
                if len(pending) > 4 * number:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _read(path: Path, size: Size | None, apply_orientation: bool, levels: Levels | None, compare: bool) -> CheckedImage:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            # Reading a pipe or a device may never end.
            return CheckedImage(b"", "", fault="is not a regular file", fault_code="image_missing")
        data = read_image_file(path)
    except ImageFault as error:
        return CheckedImage(b"", "", fault=str(error), fault_code="image_damaged")
    except FileNotFoundError:
        return CheckedImage(b"", "", fault="is missing", fault_code="image_missing")
    except OSError as error:
        return CheckedImage(b"", "", fault=f"cannot be read ({error.strerror})", fault_code="image_missing")
    return check_image(data, size, apply_orientation, levels, compare)


def check_image(
    data: bytes, size: Size | None, apply_orientation: bool = True, levels: Levels | None = None, compare: bool = True
) -> CheckedImage:
    """Decode and compare the bytes of one image; see :func:`check_images`."""
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        header = checked_header(data)
        orientation, note = _orientation(header, size, apply_orientation)
        fault = _size_fault(header, orientation, size)
        if fault[1] == "size_differs":
            known = (note,) if note is not None else ()
            used = header.size(orientation)
            return CheckedImage(data, sha256, *used, orientation, known, fault=fault[0], fault_code=fault[1])
        pixels, notes = decode_stored(data, header, levels)
    except ImageFault as error:
        return CheckedImage(data, sha256, fault=str(error), fault_code="image_damaged")
    except MemoryError:
        words = f"does not fit in memory ({header.width} x {header.height} pixels); divide it into tiles"
        return CheckedImage(data, sha256, fault=words, fault_code="image_damaged")
    if note is not None:
        notes.append(note)
    # Images are compared as stored: copies that differ only in their EXIF orientation are very rare.
    small = small_grey(pixels) if compare else None
    looks = (0, b"") if small is None else (perceptual_hash(small), thumbnail(small))
    return CheckedImage(data, sha256, *header.size(orientation), orientation, tuple(notes), *looks, *fault)


def _orientation(header: Header, annotated: Size | None, apply: bool) -> tuple[int, Note | None]:
    """Return the orientation to apply: the EXIF tag, unless the annotated size is the size of the stored pixels."""
    tag = header.orientation
    if tag == 1:
        return 1, None
    if not apply:
        return 1, Note("orientation", f"EXIF orientation {tag}, ignored because of data.orientation=ignore")
    stored, rotated = header.size(1), header.size(tag)
    if annotated is not None and rotated != stored and rotated != annotated:
        is_stored = annotated == stored or (_same_shape(annotated, stored) and not _same_shape(annotated, rotated))
        if is_stored:
            return 1, Note("orientation", f"EXIF orientation {tag}, not applied: the annotated size is the stored size")
    return tag, Note("orientation", f"EXIF orientation {tag}, applied")


def _same_shape(a: Size, b: Size) -> bool:
    """Tell whether two sizes fit copies of one image at different scales, rounded to whole pixels."""
    if min(*a, *b) < 1:
        return False
    across, down = a[0] / b[0], a[1] / b[1]
    if min(abs(across - 1), abs(down - 1)) < _CUT:
        return False
    return abs(across - down) <= max(_SAME_SHAPE * across, 1 / min(b), across / min(a))


def _size_fault(header: Header, orientation: int, annotated: Size | None) -> tuple[str, FaultCode]:
    """Return how the size after rotation differs from the annotated size, in words, and the code of the fault."""
    used = header.size(orientation)
    if annotated is None or annotated == used:
        return "", ""
    note = ""
    if annotated == used[::-1]:
        note = f"; EXIF orientation {orientation} is applied" if orientation >= 5 else "; width and height are swapped"
    words = f"has {used[0]} x {used[1]} pixels, but the annotations have {annotated[0]} x {annotated[1]}{note}"
    return words, "size_scaled" if _same_shape(annotated, used) else "size_differs"
