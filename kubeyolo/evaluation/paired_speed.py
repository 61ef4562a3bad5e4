"""The speed of an int8 network compared with its float network on this machine, measured alternately in one process."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from kubeyolo.evaluation.runtimes import Runtime
from kubeyolo.resources import processor_name, usable_processors

MOST_SECONDS = 3.0
"""Seconds of a measurement, without the first run of each network."""
MOST_RUNS = 30
FASTER = 1.005
"""Ratio from which int8 counts as faster."""
_LEAST_RUNS = 3


@dataclass(frozen=True)
class PairedSpeed:
    """The median time of an image in float and in int8.

    Attributes:
        runtime: The runtime of both networks.
        float_ms: Milliseconds of an image with the float network.
        int8_ms: Milliseconds of an image with the int8 network.
        processor: Name of the processor.
        threads: Number of processor cores that were used.
    """

    runtime: str
    float_ms: float
    int8_ms: float
    processor: str
    threads: int

    @property
    def ratio(self) -> float:
        """How many times faster int8 is."""
        return self.float_ms / self.int8_ms

    @property
    def words(self) -> str:
        """The measurement in words."""
        return (
            f"{self.float_ms:.1f} ms in float, {self.int8_ms:.1f} ms in int8 for an image in {self.runtime} on "
            f"{self.threads} x {self.processor}"
        )

    @property
    def warning(self) -> str:
        """A sentence if int8 is slower, or not faster, on this machine; empty if it is faster."""
        if self.ratio >= FASTER:
            return ""
        return (
            f"int8 is not faster than float on this machine ({self.words}): processors without VNNI or AMX gain "
            "little; measure on the machine that will run the network with 'kubeyolo benchmark'"
        )

    def record(self) -> dict[str, Any]:
        """Return the measurement in the form of a record."""
        return {
            "runtime": self.runtime,
            "float_ms": round(self.float_ms, 3),
            "int8_ms": round(self.int8_ms, 3),
            "ratio": round(self.ratio, 3),
            "processor": self.processor,
            "threads": self.threads,
        }


def paired_speed(
    float_network: Runtime, int8_network: Runtime, image_size: tuple[int, int], runtime: str
) -> PairedSpeed:
    """Measure two networks alternately, an image at a time: a slow moment of a shared machine then slows both.

    Args:
        float_network: The float network.
        int8_network: The int8 network.
        image_size: Height and width of the images.
        runtime: Name of their runtime.
    """
    image = np.random.default_rng(0).random((1, 3, *image_size), dtype=np.float32)
    networks = (float_network, int8_network)
    times: tuple[list[float], list[float]] = ([], [])
    for network in networks:
        network.raw(image)
    end = time.perf_counter() + MOST_SECONDS
    while len(times[0]) < _LEAST_RUNS or (time.perf_counter() < end and len(times[0]) < MOST_RUNS):
        for network, measured in zip(networks, times, strict=True):
            begin = time.perf_counter()
            network.raw(image)
            measured.append(time.perf_counter() - begin)
    milliseconds = [1000 * median(each) for each in times]
    return PairedSpeed(runtime, milliseconds[0], milliseconds[1], processor_name(), usable_processors())
