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

from kubeyolo.data.layouts.names import is_leftover_folder
from kubeyolo.errors import InputError
from kubeyolo.file_kinds import IMAGE_SUFFIXES, UNREAD_IMAGE_SUFFIXES, kind_of
from kubeyolo.prediction.foreign import foreign_source, is_video
from kubeyolo.prediction.mark import is_drawn

STORES = ("minio://", "s3://")

# Images that are not read are taken too: each is refused by its name, so that nobody misses it in silence.
_SUFFIXES = IMAGE_SUFFIXES | UNREAD_IMAGE_SUFFIXES
_PATTERN = re.compile(r"[*?\[]")
_DIGITS = re.compile(r"(\d+)")
# Names of a folder that are compared with one that is missing, and how alike they are to be named.
_MOST_COMPARED = 1000
_NEARNESS = 0.8
# Missing files to name a near name for: looking for it takes milliseconds, and a list may have thousands.
_MOST_SUGGESTED = 20


class SourceFault(ValueError):
    """Why an image cannot be read, to be put after its name and a colon."""


@dataclass(frozen=True)
class Source:
    """An image to read.

    Attributes:
        name: Its path or URI as given; for an image of a folder or pattern, the given part and its path below.
        folder: Its folder, or the given folder it lies below: drawn pictures keep their paths relative to it.
        inner: Its path below ``folder``.
        fault: Why it cannot be read, if that is known before reading; otherwise empty.
    """

    name: str
    folder: str
    inner: PurePosixPath
    fault: str = ""

    @property
    def stored(self) -> bool:
        """Whether it lies in an object store."""
        return self.name.startswith(STORES)

    def read(self) -> bytes:
        """Return the content of the file.

        Raises:
            SourceFault: There is none, or it cannot be read.
            WorkError: An object store does not answer.
        """
        if self.fault:
            raise SourceFault(self.fault)
        if self.stored:
            return _read_stored(self.name)
        try:
            return Path(self.name).read_bytes()
        except MemoryError as error:
            raise SourceFault("does not fit in memory") from error
        except (OSError, ValueError) as error:
            raise SourceFault(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


@dataclass
class Sources:
    """Images in the order in which they were given.

    Attributes:
        images: The images, including images with a known fault.
        left_out: Number of files in folders and patterns that are not images, by suffix.
        named: How many arguments there were.
    """

    images: list[Source] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    named: int = 0

    def only_fault(self) -> str | None:
        """Return name and fault of the only argument, if it cannot be used at all."""
        if self.named == 1 and len(self.images) == 1 and self.images[0].fault:
            return f"{self.images[0].name}: {self.images[0].fault}"
        return None


def find_sources(arguments: Iterable[str], without: Path | None = None) -> Sources:
    """Return the images that arguments name.

    An argument is the name of a file or a folder, a pattern such as ``photos/**/*.jpg``, or a URI of a store. What
    exists under the name is taken before the name is read in another way. A folder stands for the images in it and
    in its folders, in natural order, without hidden files.

    Args:
        arguments: Names.
        without: The folder of drawn pictures: pictures that an earlier call drew there are not read again.
    """
    found = Sources()
    missing = 0
    for argument in arguments:
        found.named += 1
        sources = _sources_of(argument, _real(without) if without else None, found.left_out, missing < _MOST_SUGGESTED)
        missing += bool(sources[0].fault)
        found.images += sources
    return found


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return the sort key of natural order: ``a2`` before ``a10``."""
    parts = _DIGITS.split(name.casefold())
    return [(int(part), "") if place % 2 else (-1, part) for place, part in enumerate(parts)] + [(-2, name)]


def _sources_of(argument: str, without: str | None, left_out: Counter[str], suggests: bool) -> list[Source]:
    name = _local(argument)
    if name is not None:
        return _of_folder(name, without, left_out) if os.path.isdir(name) else [_of_file(name)]
    if argument.startswith(STORES):
        return _of_store(argument, left_out)
    foreign = foreign_source(argument)
    if foreign:
        return [_faulty(argument, foreign)]
    if _PATTERN.search(argument):
        return _of_pattern(argument, without, left_out)
    if not argument.strip():
        return [_faulty(repr(argument), "is an empty name")]
    return [_faulty(argument, _missing(argument, suggests))]


def _local(argument: str) -> str | None:
    """Return the path that an argument names, if it exists."""
    if not argument or "\0" in argument:
        return None
    names = [argument]
    if argument.startswith("~"):
        names.append(os.path.expanduser(argument))
    if argument.startswith("file://"):
        from kubeyolo.storage.location import FileLocation, parse

        location = parse(argument)
        names = [str(location.path)] if isinstance(location, FileLocation) else []
    return next((name for name in names if os.path.lexists(name)), None)


def _of_file(name: str) -> Source:
    folder, base = os.path.split(name)
    return Source(name, folder, PurePosixPath(base), _fault_of_file(name))


def _faulty(name: str, fault: str) -> Source:
    return Source(name, "", PurePosixPath("image"), fault)


def _fault_of_file(name: str) -> str:
    try:
        mode = os.stat(name).st_mode
    except FileNotFoundError:
        return (
            f"is a link to {os.readlink(name)}, which does not exist"
            if os.path.islink(name)
            else "does not exist any more"
        )
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        return foreign_source(name) or "is a device, not an image file"
    return foreign_source(name) if is_video(name) else ""


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


def _of_folder(folder: str, without: str | None, left_out: Counter[str]) -> list[Source]:
    ignored: Counter[str] = Counter()
    closed: list[Source] = []
    paths = ((name, os.path.join(folder, name)) for name in _walk(folder, closed))
    names = [name for name, path in paths if not _is_output(path, without) and _is_image(path, ignored)]
    left_out.update(ignored)
    if not names and not closed:
        found = f" ({counted_endings(ignored)})" if ignored else ""
        return [_faulty(folder, f"there are no images in this folder or below it{found}")]
    return _sorted(folder, names) + closed


def _sorted(folder: str, names: list[str]) -> list[Source]:
    return [
        Source(path, folder, PurePosixPath(*Path(name).parts), _fault_of_file(path))
        for name in sorted(names, key=natural_key)
        for path in [os.path.join(folder, name)]
    ]


def _walk(folder: str, closed: list[Source]) -> Iterator[str]:
    """Yield the files below a folder, links followed, hidden ones left out; a folder is entered once.

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


def _is_image(path: str, left_out: Counter[str]) -> bool:
    """Tell whether a file of a folder is to be read: by its ending, and by its content where it has none."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in _SUFFIXES:
        return not os.path.exists(path) or os.path.isfile(path)
    if not suffix and os.path.isfile(path):
        try:
            with open(path, "rb") as file:
                if (kind_of(file.read(1024)) or "").endswith(" image"):
                    return True
        except OSError:
            return True
    left_out[suffix or "without an ending"] += 1
    return False


def _of_pattern(pattern: str, without: str | None, left_out: Counter[str]) -> list[Source]:
    folder, rest = _fixed_part(pattern)
    ignored: Counter[str] = Counter()
    names = []
    seen: set[tuple[str, str]] = set()
    for name in glob.iglob(rest, root_dir=folder or None, recursive=True):
        path = os.path.join(folder, name)
        # Links may lead into a folder again and again.
        place = (_real(os.path.dirname(path)), os.path.basename(path))
        if place in seen:
            continue
        seen.add(place)
        if not os.path.isdir(path) and not _is_output(path, without) and _is_image(path, ignored):
            names.append(name)
    left_out.update(ignored)
    if not names:
        return [_faulty(pattern, _nothing_matched(folder, rest, ignored))]
    return _sorted(folder, names)


def _fixed_part(pattern: str) -> tuple[str, str]:
    """Split a pattern into its leading folders that exist, brackets in their names and all, and the rest."""
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
    loose = "".join(f"[{one.lower()}{one.upper()}]" if one.isalpha() else one for one in rest)
    if "[" not in rest:
        count = sum(1 for _ in glob.iglob(loose, root_dir=folder or None, recursive=True))
        if count:
            return f"no file matches; ignoring case, {count} would: '{folder}{loose}'"
    return "no file matches this pattern"


def _is_output(path: str, folder: str | None) -> bool:
    """Tell whether a file lies in the folder of drawn pictures, and is one."""
    return folder is not None and _real(path).startswith(f"{folder}{os.sep}") and is_drawn(path)


def _real(path: str | Path) -> str:
    return os.path.realpath(path)


def counted_endings(counts: Counter[str]) -> str:
    """Return endings of files with how many there are, the most frequent first."""
    shown = [f"{count} {ending}" for ending, count in counts.most_common(5)]
    rest = sum(counts.values()) - sum(count for _, count in counts.most_common(5))
    return ", ".join(shown + ([f"{rest} others"] if rest else []))


def _of_store(uri: str, left_out: Counter[str]) -> list[Source]:
    """Return the image of a URI, or the images below it where it is a prefix."""
    from kubeyolo.storage.uri import open_store, split_uri

    if len(PurePosixPath(uri.split("://", 1)[1]).parts) > 1:
        parent, name = split_uri(uri)
        if open_store(parent).exists(name):
            return [Source(uri, parent, PurePosixPath(name))]
    store = open_store(uri)
    ignored: Counter[str] = Counter()
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
    left_out.update(ignored)
    if not keys:
        others = f" ({counted_endings(ignored)})" if ignored else ""
        return [_faulty(uri, f"there are no images at or below this URI{others}")]
    return [Source(store.uri_of(key), store.uri, PurePosixPath(key)) for key in sorted(keys, key=natural_key)]


def _read_stored(uri: str) -> bytes:
    from kubeyolo.storage.uri import open_store, split_uri

    parent, name = split_uri(uri)
    try:
        return open_store(parent).read_bytes(name)
    except InputError as error:
        raise SourceFault(str(error).removeprefix(f"{uri}: ")) from error
