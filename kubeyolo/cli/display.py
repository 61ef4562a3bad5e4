"""A run as it is shown on a terminal or in a log: a line when a step starts and ends, its own lines between them."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.text import Text

from kubeyolo.report.formats import duration


class RunDisplay:
    """Prints what happens to the steps of a run."""

    def __init__(self, console: Console | None = None) -> None:
        # The stream is named now: while kfp runs, sys.stdout is another one.
        self._console = console or Console(file=sys.stdout, soft_wrap=True, highlight=False)
        self._since: dict[str, float] = {}

    def started(self, step: str) -> None:
        """Say that a step has started."""
        self._since[step] = time.monotonic()
        self._print(("▶ ", "cyan"), (step, "bold"))

    def cached(self, step: str) -> None:
        """Say that a step's result is known."""
        self._print(("• ", "green"), (step, "bold"), (" from the cache", "dim"))

    def line(self, step: str, text: str) -> None:
        """Show a line that a step has printed."""
        self._print((f"    {text}", "dim"))

    def finished(self, step: str, seconds: float) -> None:
        """Say how long a step took."""
        self._print(("✓ ", "green"), (step, "bold"), (f" {duration(seconds)}", "dim"))

    def failed(self, step: str, message: str, interrupted: bool = False) -> None:
        """Say that a step has failed, or was interrupted; the message is told at the end."""
        seconds = time.monotonic() - self._since.get(step, time.monotonic())
        how = "interrupted" if interrupted else "failed"
        self._print(("✗ ", "red"), (step, "bold"), (f" {how} after {duration(seconds)}", "red"))

    def _print(self, *parts: tuple[str, str]) -> None:
        self._console.print(Text.assemble(*parts))


class Silent:
    """Shows nothing of a run."""

    def started(self, step: str) -> None:
        """Show nothing."""

    def cached(self, step: str) -> None:
        """Show nothing."""

    def line(self, step: str, text: str) -> None:
        """Show nothing."""

    def finished(self, step: str, seconds: float) -> None:
        """Show nothing."""

    def failed(self, step: str, message: str, interrupted: bool = False) -> None:
        """Show nothing."""
