"""What a piece of code costs: seconds of this process, and the largest memory that Python and numpy had at once."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Costs:
    """The costs of a block, once it has ended."""

    seconds: float = 0.0
    megabytes: float = 0.0


@contextmanager
def measured() -> Iterator[Costs]:
    costs = Costs()
    tracemalloc.start()
    begun = time.process_time()
    try:
        yield costs
    finally:
        costs.seconds = time.process_time() - begun
        costs.megabytes = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
