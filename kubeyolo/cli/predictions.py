"""Prints predictions to standard output as soon as they are computed, and a summary to standard error."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from rich.cells import cell_len

from kubeyolo.cli.streams import discard, only_result
from kubeyolo.data.finding_kinds import KINDS
from kubeyolo.errors import InputError, InterruptedWork, WorkError
from kubeyolo.prediction.drawing import Painter
from kubeyolo.prediction.result_files import ResultFile
from kubeyolo.prediction.sources import Sources, counted_endings
from kubeyolo.prediction.stream import DRAWN_AS_PNG, NOT_DRAWN, Failure, Prediction
from kubeyolo.printable import escaped_name
from kubeyolo.progress import Progress
from kubeyolo.stop_signals import StopOrder, handling

_MOST_LISTED = 20
_WIDEST_NAME = 60
_NUMBER_WIDTH = 8
_DONE = {
    "orientation": "images with an EXIF orientation: turned as a viewer shows them",
    DRAWN_AS_PNG: "pictures too large for JPEG: drawn as PNG",
    NOT_DRAWN: "pictures that were not drawn",
}
"""Texts of notes by code, for notes without a finding and for findings whose own text is about annotations."""
_ORDER = {code: place for place, code in enumerate(KINDS)}


@dataclass
class Summary:
    """The outcome for all images: how many are done, the failures, and the notes by code."""

    done: int = 0
    drawn: int = 0
    failures: list[Failure] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, outcome: Prediction | Failure) -> None:
        """Count an outcome."""
        if isinstance(outcome, Failure):
            self.failures.append(outcome)
            return
        self.done += 1
        self.drawn += outcome.drawn is not None
        for note in outcome.notes:
            self.notes[note.code] += 1
            self.first.setdefault(note.code, f"{escaped_name(outcome.source.name)}, {escaped_name(note.words)}")


def write_results(
    outcomes: Iterator[Prediction | Failure],
    sources: Sources,
    classes: Sequence[str],
    as_json: bool,
    files: Sequence[ResultFile] = (),
) -> Summary:
    """Print each result as soon as it is computed, in whole lines, and return a summary.

    Args:
        outcomes: The results.
        sources: The images.
        classes: Names of the classes.
        as_json: Whether to print JSON lines.
        files: Files that also get each result.

    Raises:
        InterruptedWork: This process received a stop signal; only whole lines were printed.
        WorkError: Standard output cannot be written.
    """
    summary, total = Summary(), len(sources.images)
    lines = _Table(sources, classes) if not as_json else _JsonLines(classes)
    try:
        with _interruptible() as whole, _progress(total) as progress:
            while True:
                # Output of libraries must not be mixed with lines of JSON.
                with only_result(as_json):
                    outcome = next(outcomes, None)
                if outcome is None:
                    return summary
                with whole:
                    if isinstance(outcome, Prediction):
                        _write(lines.of(outcome))
                        for file in files:
                            file.add(outcome)
                    summary.add(outcome)
                progress.advance()
    except KeyboardInterrupt as error:
        raise InterruptedWork(f"interrupted; {summary.done} of {total} images are done and printed") from error
    except OSError as error:
        # Python would fail again to write the buffer at exit, and print a stack trace.
        discard(1)
        what = (
            "was closed by its reader" if isinstance(error, BrokenPipeError) else f"cannot be written: {error.strerror}"
        )
        raise WorkError(f"standard output {what}; {summary.done} of {total} images are done") from error
    finally:
        close = getattr(outcomes, "close", None)
        if close:
            close()


def summarise(
    summary: Summary, sources: Sources, classes: Sequence[str], painter: Painter | None, output: Path | None
) -> None:
    """Print a summary of all images on standard error.

    Raises:
        WorkError: Some images could not be read, or their pictures could not be drawn.
    """
    if sources.left_out:
        _say(f"files that are not images: {counted_endings(sources.left_out)}")
    for code, count in sorted(summary.notes.items(), key=lambda pair: _ORDER.get(pair[0], len(_ORDER))):
        about, _, done = _about(code).partition(": ")
        _say(f"{about}: {count}{f', {done}' if done else ''} (first: {summary.first[code]})")
    if painter and painter.without_font:
        numbers = sorted(painter.without_font)
        named = ", ".join(f"#{number} {escaped_name(classes[number])}" for number in numbers[:5])
        more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
        _say(
            f"classes drawn by number, because no font has the letters of their names: {named}{more}; install a font "
            "of their script (such as Noto Sans), or give --font FILE"
        )
    if output and summary.drawn:
        _say(f"pictures with boxes: {summary.drawn}, in {escaped_name(str(output))}")
    _refuse_failures(summary, len(sources.images))


def _refuse_failures(summary: Summary, total: int) -> None:
    failures = summary.failures
    if len(failures) == total == 1:
        raise InputError(f"{escaped_name(failures[0].source.name)}: {escaped_name(failures[0].reason)}")
    for failure in failures[:_MOST_LISTED]:
        _say(f"not read: {escaped_name(failure.source.name)}: {escaped_name(failure.reason)}")
    if len(failures) > _MOST_LISTED:
        _say(f"not read: {len(failures) - _MOST_LISTED} more")
    if failures:
        rest = "; all other images are processed" if summary.done else ""
        raise WorkError(f"{len(failures)} of {total} images cannot be read{rest}")
    if summary.notes[NOT_DRAWN]:
        raise WorkError(f"{summary.notes[NOT_DRAWN]} of {total} pictures are not drawn; all results are printed")


def _about(code: str) -> str:
    if code in _DONE:
        return _DONE[code]
    kind = KINDS.get(code)
    return f"{kind.about}: {kind.done}" if kind else code.replace("_", " ")


def _say(line: str) -> None:
    print(line.encode("utf-8", "backslashreplace").decode(), file=sys.stderr)


class _JsonLines:
    """A JSON document for each image."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes

    def of(self, found: Prediction) -> str:
        about: dict[str, Any] = {
            "image": found.source.name,
            "width": found.width,
            "height": found.height,
            "boxes": _boxes(found, self._classes),
        }
        if found.drawn is not None:
            about["drawn"] = found.drawn
        if found.notes:
            about["notes"] = [{"code": note.code, "words": note.words} for note in found.notes]
        line = json.dumps(about, ensure_ascii=False)
        try:
            line.encode(sys.stdout.encoding or "utf-8")
        except UnicodeEncodeError:
            # The name has bytes that are not text, or the output is not UTF-8.
            line = json.dumps(about)
        return f"{line}\n"


class _Table:
    """A row for each box. Column widths fit all possible names, because each row is printed as soon as it is known."""

    def __init__(self, sources: Sources, classes: Sequence[str]) -> None:
        self._classes = [escaped_name(name) for name in classes]
        names = [cell_len(escaped_name(source.name)) for source in sources.images]
        self._widths = (min(max([5, *names]), _WIDEST_NAME), min(max([5, *map(cell_len, self._classes)]), 40))
        self._has_head = False
        self._encoding = sys.stdout.encoding or "utf-8"
        self._line, self._none = ("─", "–") if self._encoding.lower().startswith("utf") else ("-", "-")

    def of(self, found: Prediction) -> str:
        name, rows = escaped_name(found.source.name), []
        for box in _boxes(found, self._classes):
            rows.append(self._row(name, box["class"], f"{box['score']:.4f}", *(f"{value:.1f}" for value in box["box"])))
        rows = rows or [self._row(name, self._none)]
        if not self._has_head:
            self._has_head = True
            head = self._row("image", "class", "score", "x1", "y1", "x2", "y2")
            rows = [head, self._line * cell_len(head), *rows]
        text = "\n".join(rows) + "\n"
        return text.encode(self._encoding, "backslashreplace").decode(self._encoding)

    def _row(self, image: str, name: str, *numbers: str) -> str:
        cells = [
            f"{text}{' ' * (width - cell_len(text))}" for text, width in zip((image, name), self._widths, strict=True)
        ]
        return "  ".join([*cells, *(number.rjust(_NUMBER_WIDTH) for number in numbers)]).rstrip()


def _boxes(found: Prediction, classes: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "class": classes[int(row[5])],
            "score": round(float(row[4]), 4),
            "box": [round(float(value), 1) for value in row[:4]],
        }
        for row in found.rows
    ]


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@contextmanager
def _progress(total: int) -> Iterator[Progress]:
    """Show progress on standard error, unless the rows themselves are printed on the terminal."""
    if sys.stdout.isatty():
        yield Progress("predicting", total, line_seconds=float("inf"))
        return
    with Progress("predicting", total) as progress:
        yield progress


class _Whole:
    """A block that Ctrl-C does not interrupt: KeyboardInterrupt is raised at its end, or at once on a second Ctrl-C."""

    def __init__(self) -> None:
        self._inside = False
        self._order = StopOrder()

    def __enter__(self) -> None:
        self._inside = True

    def __exit__(self, *raised: object) -> None:
        self._inside = False
        if self._order.given:
            raise KeyboardInterrupt

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a stop signal."""
        first = not self._order.given
        if self._order.is_second(number) or (first and not self._inside):
            raise KeyboardInterrupt


@contextmanager
def _interruptible() -> Iterator[_Whole]:
    """Raise KeyboardInterrupt on a stop signal, but not within a block of :class:`_Whole`."""
    whole = _Whole()
    with handling(whole.handle):
        yield whole
