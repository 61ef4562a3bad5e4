"""Images to predict on: files, folders, patterns, lists of names, and images in an object store."""

from __future__ import annotations

import difflib
import glob
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from kubeyolo.data.headers import ImageFault, open_image, read_image_file
from kubeyolo.data.layouts.names import is_leftover_folder
from kubeyolo.errors import InputError
from kubeyolo.file_kinds import IMAGE_SUFFIXES, UNREAD_IMAGE_SUFFIXES, kind_of
from kubeyolo.regular_files import open_regular
from kubeyolo.storage.location import FileLocation, parse
from kubeyolo.storage.place import Place

STORES = ("minio://", "s3://")

MARK = b"drawn by kubeyolo predict"
"""The comment in drawn pictures: a file with it may be overwritten, and is skipped when a folder is read."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_DATA = re.compile(r"data:[\w.+-]+/[\w.+-]+[;,]", re.IGNORECASE)
_CAMERAS = re.compile(r"\d{1,3}|/dev/video\d+|(screen|webcam|camera)(\s*\d+)*", re.IGNORECASE)
_STREAMS = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "udp", "tcp", "mms", "hls"})
_VIDEOS = frozenset(
    {".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m3u8", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv"}
    | {".ts", ".vob", ".webm", ".wmv"}
)

# Images in formats that are not read are included: an error names each of them, so that no image is skipped silently.
_SUFFIXES = IMAGE_SUFFIXES | UNREAD_IMAGE_SUFFIXES
_MARK_WITHIN = 4096
_PATTERN = re.compile(r"[*?\[]")
_DIGITS = re.compile(r"(\d+)")
# Most names of a folder that are compared with a missing name, and the least similarity for a suggestion.
_MOST_COMPARED = 1000
_NEARNESS = 0.8
# Missing files that get a suggestion: each search takes milliseconds, and a list may have thousands.
_MOST_SUGGESTED = 20


class SourceFault(ValueError):
    """Why an image cannot be read: a text that follows its name and a colon."""


@dataclass(frozen=True)
class Source:
    """An image to read.

    Attributes:
        name: Path or URI as in the argument. For an image from a folder or a pattern: the leading folders of the
            argument, and the path below them.
        folder: Folder of the image, or the folder in the argument: drawn pictures keep their paths relative to it.
        inner: Path below ``folder``.
        fault: Why the image cannot be read, if that is known before reading; otherwise empty.
    """

    name: str
    folder: str
    inner: PurePosixPath
    fault: str = ""

    @property
    def stored(self) -> bool:
        """Whether the image is in an object store."""
        return self.name.startswith(STORES)

    def read(self) -> bytes:
        """Return the content of the file.

        Raises:
            SourceFault: The file does not exist or cannot be read.
            WorkError: An object store does not answer.
        """
        if self.fault:
            raise SourceFault(self.fault)
        if self.stored:
            return _read_stored(self.name)
        try:
            return read_image_file(Path(self.name))
        except ImageFault as error:
            raise SourceFault(str(error)) from error
        except MemoryError as error:
            raise SourceFault("does not fit in memory") from error
        except (OSError, ValueError) as error:
            raise SourceFault(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


@dataclass
class Sources:
    """Images in the order of the arguments.

    Attributes:
        images: The images, including images with a known fault.
        left_out: Number of files in folders and patterns that are not images, by suffix.
        named: Number of arguments.
    """

    images: list[Source] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    named: int = 0

    def only_fault(self) -> str | None:
        """Return the name and the fault of the only argument if it cannot be used; otherwise None."""
        if self.named == 1 and len(self.images) == 1 and self.images[0].fault:
            return f"{self.images[0].name}: {self.images[0].fault}"
        return None


def find_sources(arguments: Iterable[str], without: Path | None = None) -> Sources:
    """Return the images that arguments name.

    An argument is the name of a file or a folder, a pattern such as ``photos/**/*.jpg``, or a URI of a store. If a
    file or folder has exactly that name, it is used. A folder stands for the images in it and below it, in natural
    order, without hidden files.

    Args:
        arguments: The arguments.
        without: The folder of drawn pictures: pictures that an earlier call drew there are not read again.
    """
    result = Sources()
    missing = 0
    for argument in arguments:
        result.named += 1
        ignored: Counter[str] = Counter()
        sources = _sources_of(argument, _real(without) if without else None, ignored, missing < _MOST_SUGGESTED)
        result.left_out.update(ignored)
        missing += bool(sources[0].fault)
        result.images += sources
    return result


def is_drawn(path: Path | str) -> bool:
    """Tell whether a file was drawn by this command."""
    try:
        with open_image(Path(path)) as file:
            return MARK in file.read(_MARK_WITHIN)
    except (OSError, ImageFault):
        return False


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return the sort key of natural order: ``a2`` before ``a10``."""
    parts = _DIGITS.split(name.casefold())
    return [(int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts)] + [(-2, name)]


def _sources_of(argument: str, without: str | None, ignored: Counter[str], suggests: bool) -> list[Source]:
    name = _local(argument)
    if name is not None:
        return _of_folder(name, without, ignored) if os.path.isdir(name) else [_of_file(name)]
    if argument.startswith(STORES):
        return _of_store(argument, ignored)
    foreign = _foreign(argument)
    if foreign:
        return [_faulty(argument, foreign)]
    if _PATTERN.search(argument):
        return _of_pattern(argument, without, ignored)
    if not argument.strip():
        return [_faulty(repr(argument), "is an empty name")]
    return [_faulty(argument, _missing(argument, suggests))]


def _is_video(name: str) -> bool:
    """Tell whether a name has the suffix of a video."""
    return os.path.splitext(name)[1].lower() in _VIDEOS


def _foreign(argument: str) -> str:
    """Return why an argument cannot name a file, and what to do instead; empty if it may name a file.

    The text follows the argument and a colon.
    """
    scheme = _SCHEME.match(argument)
    if scheme and scheme[1].lower() in _STREAMS:
        return f"is a video stream, which this command cannot read; {_record(argument)}"
    if scheme and _is_video(urlsplit(argument).path):
        return f"is a video, which this command cannot read; {_record(argument)}"
    if scheme and scheme[1].lower() in ("http", "https", "ftp", "ftps"):
        return (
            "is a web address, which this command cannot read; download the image (curl -LO ADDRESS) and give the file"
        )
    if scheme and scheme[1].lower() != "file":
        return f"{scheme[1]}:// URIs cannot be read; give files, folders, minio:// or s3://"
    if _DATA.match(argument):
        return "is a data URI, which this command cannot read; store the image as a file"
    if _CAMERAS.fullmatch(argument):
        return (
            "is a camera or a screen, which this command cannot read; store its pictures first "
            "(ffmpeg -f v4l2 -i /dev/video0 -vf fps=1 frames/%06d.jpg), and give their folder"
        )
    if _is_video(argument):
        return f"is a video, which this command cannot read; {_record(os.path.basename(argument))}"
    return ""


def _record(source: str) -> str:
    return f"store its pictures first (ffmpeg -i {source} -vf fps=1 frames/%06d.jpg), and give their folder"


def _local(argument: str) -> str | None:
    """Return the path that an argument names, if it exists."""
    if not argument or "\0" in argument:
        return None
    names = [argument]
    if argument.startswith("~"):
        names.append(os.path.expanduser(argument))
    if argument.startswith("file://"):
        location = parse(argument)
        names = [str(location.path)] if isinstance(location, FileLocation) else []
    return next((name for name in names if os.path.lexists(name)), None)


def _of_file(name: str) -> Source:
    folder, base = os.path.split(name)
    return Source(name, folder, PurePosixPath(base), _fault_of_file(name))


def _faulty(name: str, fault: str) -> Source:
    return Source(name, "", PurePosixPath("image"), fault)


def _no_images(name: str, where: str, others: Counter[str]) -> Source:
    counts = f" ({counted_endings(others)})" if others else ""
    return _faulty(name, f"there are no images {where}{counts}")


def _fault_of_file(name: str) -> str:
    try:
        mode = os.stat(name).st_mode
    except FileNotFoundError:
        is_link = os.path.islink(name)
        return f"is a link to {os.readlink(name)}, which does not exist" if is_link else "no longer exists"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        return _foreign(name) or "is a device, not an image file"
    return _foreign(name) if _is_video(name) else ""


def _missing(argument: str, suggests: bool) -> str:
    folder, base = os.path.split(argument)
    if not suggests and os.path.isdir(folder or "."):
        return "there is no such file"
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return f"there is no such file, nor a folder {folder}"
    near = difflib.get_close_matches(base, names, n=1, cutoff=_NEARNESS) if len(names) <= _MOST_COMPARED else []
    return f"there is no such file{f'; did you mean {near[0]!r}?' if near else ''}"


def _of_folder(folder: str, without: str | None, ignored: Counter[str]) -> list[Source]:
    closed: list[Source] = []
    paths = ((name, os.path.join(folder, name)) for name in _walk(folder, closed))
    names = [name for name, path in paths if not _is_output(path, without) and _is_image(path, ignored)]
    if not names and not closed:
        return [_no_images(folder, "in this folder or below it", ignored)]
    return _sorted(folder, names) + closed


def _sorted(folder: str, names: list[str]) -> list[Source]:
    return [
        Source(path, folder, PurePosixPath(*Path(name).parts), _fault_of_file(path))
        for name in sorted(names, key=natural_key)
        for path in [os.path.join(folder, name)]
    ]


def _walk(folder: str, closed: list[Source]) -> Iterator[str]:
    """Yield the files below a folder except hidden files; links are followed, and each folder is entered once.

    Folders that cannot be read are added to ``closed``.
    """
    seen: set[str] = set()

    def refuse(error: OSError) -> None:
        closed.append(_faulty(error.filename or folder, f"is a folder that cannot be read: {error.strerror}"))

    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = _real(parent)
        if real in seen:
            folders[:] = []
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_leftover_folder(name))
        yield from (os.path.relpath(os.path.join(parent, name), folder) for name in files if not name.startswith("."))


def _is_image(path: str, ignored: Counter[str]) -> bool:
    """Tell whether a file in a folder is an image: by its suffix, or by its content if it has no suffix."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in _SUFFIXES:
        return not os.path.exists(path) or os.path.isfile(path)
    if not suffix and os.path.isfile(path):
        try:
            with open_regular(path) as file:
                if (kind_of(file.read(1024)) or "").endswith(" image"):
                    return True
        except (OSError, InputError):
            return True
    ignored[suffix or "without an ending"] += 1
    return False


def _of_pattern(pattern: str, without: str | None, ignored: Counter[str]) -> list[Source]:
    folder, rest = _fixed_part(pattern)
    names = []
    seen: set[tuple[str, str]] = set()
    for name in glob.iglob(rest, root_dir=folder or None, recursive=True):
        path = os.path.join(folder, name)
        # Links may lead into the same folder again and again.
        real = (_real(os.path.dirname(path)), os.path.basename(path))
        if real in seen:
            continue
        seen.add(real)
        if not os.path.isdir(path) and not _is_output(path, without) and _is_image(path, ignored):
            names.append(name)
    if not names:
        return [_faulty(pattern, _nothing_matched(folder, rest, ignored))]
    return _sorted(folder, names)


def _fixed_part(pattern: str) -> tuple[str, str]:
    """Split a pattern into leading folders that exist (their names may have brackets) and the remaining pattern."""
    folder, rest = "", os.path.expanduser(pattern)
    while (cut := rest.find(os.sep)) >= 0:
        longer = f"{folder}{rest[: cut + 1]}"
        if not os.path.isdir(longer):
            break
        folder, rest = longer, rest[cut + 1 :]
    return folder, rest


def _nothing_matched(folder: str, rest: str, ignored: Counter[str]) -> str:
    if ignored:
        return f"the files that match are not images ({counted_endings(ignored)})"
    loose = "".join(f"[{letter.lower()}{letter.upper()}]" if letter.isalpha() else letter for letter in rest)
    if "[" not in rest:
        count = sum(1 for _ in glob.iglob(loose, root_dir=folder or None, recursive=True))
        if count:
            return f"no file matches; {count} would match if case were ignored: '{folder}{loose}'"
    return "no file matches this pattern"


def _is_output(path: str, folder: str | None) -> bool:
    """Tell whether a file is a drawn picture in the folder of drawn pictures."""
    return folder is not None and _real(path).startswith(f"{folder}{os.sep}") and is_drawn(path)


def _real(path: str | Path) -> str:
    return os.path.realpath(path)


def counted_endings(counts: Counter[str]) -> str:
    """Return suffixes as text, each with its number of files, the most frequent first."""
    shown = [f"{count} {ending}" for ending, count in counts.most_common(5)]
    rest = sum(counts.values()) - sum(count for _, count in counts.most_common(5))
    return ", ".join(shown + ([f"{rest} others"] if rest else []))


def _of_store(uri: str, ignored: Counter[str]) -> list[Source]:
    """Return the image at a URI, or the images below the URI if it is a prefix."""
    place = Place.of(uri)
    if len(PurePosixPath(uri.split("://", 1)[1]).parts) > 1 and place.exists():
        return [Source(uri, place.parent.uri, PurePosixPath(place.name))]
    store = place.store
    keys = []
    for entry in store.list():
        parts = PurePosixPath(entry.key).parts
        if any(map(is_leftover_folder, parts)):
            continue
        suffix = PurePosixPath(entry.key).suffix.lower()
        if suffix in _SUFFIXES:
            keys.append(entry.key)
        else:
            ignored[suffix or "without an ending"] += 1
    if not keys:
        return [_no_images(uri, "at or below this URI", ignored)]
    return [Source(store.uri_of(key), store.uri, PurePosixPath(key)) for key in sorted(keys, key=natural_key)]


def _read_stored(uri: str) -> bytes:
    try:
        return Place.of(uri).read()
    except InputError as error:
        raise SourceFault(str(error).removeprefix(f"{uri}: ")) from error
