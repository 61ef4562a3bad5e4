"""The losses of the steps since the last row of the history, and what is left out of their mean.

A step whose scaled loss overflowed has no losses; losses that are not finite for another reason end the training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kubeyolo.training.finite import MOST_SKIPPED, SCALED_COLUMNS, Guard


class LossRecord:
    """Losses of the steps since the last history row; fetched from the device only for the next row.

    Args:
        guard: Ends the training if values are not finite.
        is_scaled: Whether the losses of a step end with the columns of a scaled loss.
    """

    def __init__(self, guard: Guard, is_scaled: bool = False) -> None:
        self.images: list[int] = []
        self._guard, self._is_scaled = guard, is_scaled
        self._fetched: list[list[float]] = []
        self._waiting: list[tuple[int, Any, list[int]]] = []

    def add(self, step: int, losses: Any, images: list[int]) -> None:
        """Keep the losses of a step, without waiting for them, and the images of its batch."""
        self.images = images
        self._waiting.append((step, losses, images))

    def rows(self) -> list[list[float]]:
        """Return the losses of all steps since ``clear``; those of a step whose gradients overflowed are 0.

        Raises:
            NotFiniteError: A loss or the gradients' norm is not finite, unless the gradients of a scaled loss
                overflowed; or too many updates in a row were skipped. Names the step and the last finite losses.
        """
        for step, losses, images in self._waiting:
            values = [float(value) for value in losses.asnumpy()]
            if self._is_scaled:
                values = self._without_overflow(step, values, images)
            if not all(math.isfinite(value) for value in values):
                last = self._fetched[-1] if self._fetched else None
                raise self._guard.loss(step, _brief(values), _brief(last) if last else "not known", images)
            self._fetched.append(values)
        self._waiting.clear()
        return self._fetched

    def _without_overflow(self, step: int, values: list[float], images: list[int]) -> list[float]:
        """Return the values, with zeros for the losses of a step whose gradients overflowed."""
        overflow, scale, _, stuck = columns = values[-SCALED_COLUMNS:]
        if stuck >= MOST_SKIPPED:
            raise self._guard.overflow(step, scale, round(stuck), images)
        return [0.0] * (len(values) - SCALED_COLUMNS) + columns if overflow else values

    def mean(self) -> list[float] | None:
        """Return the mean of the fetched losses over the steps without an overflow; None if there are none."""
        rows = [row for row in self._fetched if not (self._is_scaled and row[-SCALED_COLUMNS])]
        return [float(value) for value in np.asarray(rows, np.float64).mean(0)] if rows else None

    def scaling(self) -> dict[str, Any]:
        """Return the scale and the skipped updates after the last fetched step; empty if the loss is not scaled."""
        if not (self._is_scaled and self._fetched):
            return {}
        return {"scale": self._fetched[-1][-3], "skipped": round(self._fetched[-1][-2])}

    def restore(self, rows: Sequence[Sequence[float]]) -> None:
        """Start with the losses of a checkpoint."""
        self._fetched = [list(row) for row in rows]

    def clear(self) -> None:
        """Drop the losses after a row was built from them."""
        self._fetched = []


def _brief(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
