"""Names a rank that is slower than the others: all ranks wait for the slowest in each exchange of gradients.

A step ends at the same time in all ranks, so its duration tells nothing. What differs is how the time is spent: a rank
that comes late, because its batches come late, waits for batches; the others wait for it inside the step. So

    own time of a rank = its time waiting for batches + the shortest time inside a step of any rank,

where the shortest time is that of a rank that waits for nobody. A rank whose device computes slowly comes late inside
the step, where its own work and the waiting of the others look the same: it is not recognized.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from kubeyolo.arrays import Float32Array
from kubeyolo.output_streams import Show
from kubeyolo.training.loop_parts import Moment
from kubeyolo.training.profile import STEPS, WAITING, TimeShares

Gather = Callable[[Float32Array], Float32Array]
"""Maps a vector (V,) of each rank to the vectors of all ranks (world, V); called by all ranks at the same step."""

SLOWER = 1.5
"""Own time of a rank, divided by the median of the others', from which on it is named."""

INTERVALS = 2
"""Log intervals in a row in which a rank must be slow: a short delay is not worth a warning."""

_NAME_LENGTH = 64


@dataclass(frozen=True)
class Pace:
    """How a rank spent a log interval.

    Attributes:
        waiting: Seconds of a step in which it waited for its batch.
        inside: Seconds of a step inside the compiled step, with the exchange of gradients.
        host: Name of its machine.
    """

    waiting: float
    inside: float
    host: str

    def vector(self) -> Float32Array:
        """Return it as numbers, so that ranks can exchange it."""
        name = np.zeros(_NAME_LENGTH, np.float32)
        letters = self.host.encode()[:_NAME_LENGTH]
        name[: len(letters)] = list(letters)
        return np.concatenate([np.array([self.waiting, self.inside], np.float32), name])

    @classmethod
    def of(cls, vector: Float32Array) -> Pace:
        """Return the pace that numbers stand for."""
        letters = bytes(int(value) for value in vector[2:] if value > 0)
        return cls(float(vector[0]), float(vector[1]), letters.decode(errors="replace"))


def slow_ranks(paces: Sequence[Pace]) -> dict[int, float]:
    """Return the ranks whose own time is more than :data:`SLOWER` times the median of the others', with this ratio."""
    shortest = min(pace.inside for pace in paces)
    own = [pace.waiting + shortest for pace in paces]
    ratios = {rank: time / max(median(own[:rank] + own[rank + 1 :]), 1e-9) for rank, time in enumerate(own)}
    return {rank: ratio for rank, ratio in ratios.items() if ratio > SLOWER}


class SlowRanks:
    """Compares the ranks after every log interval, and names a slow rank once.

    Args:
        gather: Exchanges vectors between the ranks.
        shares: The time of the parts of the loop.
        interval: Steps of a log interval.
        show: Shows a line.
    """

    def __init__(self, gather: Gather, shares: TimeShares, interval: int, show: Show) -> None:
        self._gather, self._shares, self._interval, self._show = gather, shares, interval, show
        self._host = socket.gethostname()
        self._former = {WAITING: 0.0, STEPS: 0.0}
        self._steps = 0
        self._slow: dict[int, int] = {}

    def after_step(self, moment: Moment) -> None:
        """Compare the ranks if a log interval ends; all ranks do so after the same steps."""
        self._steps += 1
        if moment.step % self._interval:
            return
        paces = [Pace.of(vector) for vector in self._gather(self._pace().vector())]
        slow = slow_ranks(paces)
        self._slow = {rank: self._slow.get(rank, 0) + 1 for rank in slow}
        for rank, ratio in slow.items():
            if self._slow[rank] == INTERVALS:
                self._show(_warning(rank, ratio, paces))

    def _pace(self) -> Pace:
        """Return how this rank spent the time since the last comparison, for each step."""
        now = {part: self._shares.seconds.get(part, 0.0) for part in self._former}
        each = {part: (now[part] - self._former[part]) / self._steps for part in now}
        self._former, self._steps = now, 0
        return Pace(each[WAITING], each[STEPS], self._host)


def _warning(rank: int, ratio: float, paces: Sequence[Pace]) -> str:
    others = median(pace.waiting for other, pace in enumerate(paces) if other != rank)
    return (
        f"warning: rank {rank} on {paces[rank].host} is slower than the others, which wait for it: its steps take "
        f"{ratio:.1f} times as long, because it waits {1e3 * paces[rank].waiting:.0f} ms for each batch, and the "
        f"others {1e3 * others:.0f} ms; check the processors and the disk of this machine, or raise data.workers"
    )
