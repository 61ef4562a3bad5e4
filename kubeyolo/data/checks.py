"""Every image of a split read once, in parallel, and compared with its annotations."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kubeyolo.data.decode import image_fault
from kubeyolo.data.index import SplitIndex
from kubeyolo.errors import InputError
from kubeyolo.progress import track

_MOST_FAULTS = 100
OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how many images are done, and how many there are."""

_REMEDY = "replace the file, or remove it from the annotations"


@dataclass(frozen=True)
class CheckedImage:
    """The bytes of an image file that was found good."""

    data: bytes
    sha256: str


@dataclass(frozen=True)
class _Looked:
    data: bytes
    sha256: str
    fault: str | None


def check_images(
    index: SplitIndex,
    image_folder: Path,
    annotation_file: Path,
    threads: int | None = None,
    progress: OnProgress | None = None,
) -> None:
    """Decode every image of a split; without ``progress`` a bar is shown.

    Raises:
        InputError: A file is missing, empty, truncated, no image, or of another size than annotated; naming the first
            such file, its image id, and how many more there are.
    """
    for _ in read_images(index, image_folder, annotation_file, threads, progress):
        pass


def read_images(
    index: SplitIndex,
    image_folder: Path,
    annotation_file: Path,
    threads: int | None = None,
    progress: OnProgress | None = None,
) -> Iterator[CheckedImage]:
    """Yield the image files of a split in the order of its index, each read once and checked.

    After a bad file no more are yielded, the others are still checked so that the error can tell their number.

    Raises:
        InputError: As :func:`check_images`, when all files were looked at.
    """
    first = ""
    faults = 0
    looked = _look_at_all(index, image_folder, threads or min(8, os.cpu_count() or 1))
    what = f"checking images of {image_folder.name}"
    for i, image in enumerate(looked if progress else track(looked, what, total=len(index))):
        if progress:
            progress(what, i + 1, len(index))
        if image.fault:
            faults += 1
            path = image_folder / index.file_name[i]
            first = first or f"{path} (image {index.image_id[i]} of {annotation_file.name}) {image.fault}"
            if faults == _MOST_FAULTS:
                break
        elif not faults:
            yield CheckedImage(image.data, image.sha256)
    if faults:
        more = f"at least {faults - 1}" if faults == _MOST_FAULTS else str(faults - 1)
        raise InputError(f"{first}{f' (and {more} more)' if faults > 1 else ''}; {_REMEDY}")


def _look_at_all(index: SplitIndex, image_folder: Path, threads: int) -> Iterator[_Looked]:
    """Look at the images in threads (decoding holds no lock), with a bounded number of files in memory."""
    pending: deque[Future[_Looked]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="kubeyolo-check") as pool:
        try:
            for i, name in enumerate(index.file_name):
                pending.append(pool.submit(_look, image_folder / name, int(index.width[i]), int(index.height[i])))
                if len(pending) > 4 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _look(path: Path, width: int, height: int) -> _Looked:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return _Looked(b"", "", "is missing")
    except OSError as error:
        return _Looked(b"", "", f"cannot be read ({error.strerror})")
    return _Looked(data, hashlib.sha256(data).hexdigest(), image_fault(data, width, height))
