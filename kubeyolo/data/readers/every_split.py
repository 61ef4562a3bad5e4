"""What the label files of all splits say, for formats whose classes are those of the whole data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from kubeyolo.data.layouts.types import Layout, SplitFiles
from kubeyolo.errors import InputError

T = TypeVar("T")


class EverySplit(Generic[T]):
    """Reads each split of a data set once, when it is first needed."""

    def __init__(self, layout: Layout, read: Callable[[SplitFiles], T]) -> None:
        """Take the layout and what reads one split."""
        self._layout = layout
        self._read = read
        self._known: dict[SplitFiles, T] = {}

    def of(self, files: SplitFiles) -> T:
        """Return what one split says.

        Raises:
            InputError: A file of it is wrong.
        """
        if files not in self._known:
            self._known[files] = self._read(files)
        return self._known[files]

    def readable(self) -> list[T]:
        """Return what all splits say but those with a fault, which is raised when they are read themselves."""
        found = []
        for files in self._layout.splits.values():
            try:
                found.append(self.of(files))
            except InputError:
                continue
        return found
