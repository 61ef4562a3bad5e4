"""The consoles of rich: texts of data are printed as they are, without markup, emoji codes or control characters."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console
from rich.segment import Segment
from rich.text import Text

from kubeyolo.output_streams import unescaped
from kubeyolo.printable import escaped


class SafeConsole(Console):
    """A console that reads no markup in texts and escapes their control characters; the console's own codes stay."""

    def __init__(self, file: IO[str] | None = None, **options: Any) -> None:
        """Take the stream, by default standard output, and the options of rich's console."""
        stream = unescaped(sys.stdout if file is None else file)
        super().__init__(file=stream, markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text, escaped before rich computes the widths of columns."""
        return super().render_str(escaped(text), **options)

    def render(self, *arguments: Any, **options: Any) -> Iterable[Segment]:
        """Yield the segments of a text or a table, escaped."""
        for segment in super().render(*arguments, **options):
            yield segment if segment.control else segment._replace(text=escaped(segment.text))
