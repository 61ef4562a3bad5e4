"""Bears with an API server that is away for a while: a training needs it less than its launcher does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from kubeyolo.errors import KubeyoloError
from kubeyolo.launch.cluster import Unreachable

T = TypeVar("T")


class Patience:
    """How long the API server has been away, said once when it goes and once when it is back.

    Args:
        seconds: How long it may be.
        show: Takes each line.
        clock: In seconds.
    """

    def __init__(
        self, seconds: float, show: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds, self._show, self._clock = seconds, show, clock
        self._away: float | None = None

    def bear(self, error: KubeyoloError) -> None:
        """Take note of a request that failed; raise its error when that has gone on for too long."""
        now = self._clock()
        if self._away is None:
            self._away = now
            self._show(f"warning: {error}; trying again for {self._seconds:.0f} s")
        elif now - self._away > self._seconds:
            raise error

    def answered(self) -> None:
        """Take note of a request that was answered."""
        if self._away is not None:
            self._away = None
            self._show("the API server is back")

    def repeat(self, call: Callable[[], T], pause: float) -> T:
        """Return what ``call`` returns once the API server answers."""
        while True:
            try:
                result = call()
            except Unreachable as error:
                self.bear(error)
                time.sleep(pause)
                continue
            self.answered()
            return result
