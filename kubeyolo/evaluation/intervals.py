"""Intervals of AP: how exactly a split of limited size measures a metric.

A resample is a split of the same size whose images are drawn from the split with replacement. AP of 1,000 resamples
shows how much AP depends on the choice of the images. The images of a resample depend only on the seed, the number of
the resample and the number of images: resamples of two models on the same split have the same images, and the
differences of their AP are the paired bootstrap of the difference.

AP of a small split is on average too high: interpolated precision is a maximum, and rare classes are found or not found
by chance. AP of a resample is higher again, by about as much. The interval is therefore the normal bootstrap interval,
corrected for this bias: ``AP - bias ± 1.96 s``, where the bias is the mean of the resamples minus AP, and s is their
standard deviation (A. C. Davison and D. V. Hinkley, Bootstrap Methods and their Application, 1997, section 5.2.1).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from kubeyolo.arrays import Float64Array

RESAMPLES = 1000
LEVEL = 0.95
SEED = 17
WITH_INTERVAL = ("AP", "AP50")
"""Keys of the metrics whose interval is computed."""
LEAST_IMAGES = 30
"""Number of images with objects below which an interval is not used to judge: it would be too narrow."""

LEVEL_TEXT = f"{100 * LEVEL:g} %"


@dataclass(frozen=True)
class Interval:
    """An interval of a metric, or of a difference of a metric, with the number of images with objects behind it."""

    low: float
    high: float
    images: int

    @property
    def is_usable(self) -> bool:
        """Whether there are enough images with objects to judge by the interval."""
        return self.images >= LEAST_IMAGES


class Resamples(BaseModel):
    """AP and AP50 of a split and of its resamples, as a result and a record keep them.

    ``values`` has little-endian float32 in base64 by the key of the metric: the metric of the split itself, then a
    number for each resample; NaN where the images have no objects.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int = Field(ge=0, description="Images of the split.")
    images_with_objects: int = Field(ge=0, description="Images of the split with at least one object.")
    drawn_from: str = Field(description="Digest of the ids of the images.")
    seed: int = SEED
    values: dict[str, str]

    @classmethod
    def of(cls, values: Mapping[str, Float64Array], **about: int | str) -> Resamples:
        """Return resamples from the values of each metric (1 + R,), the metric of the split first."""
        packed = {key: base64.b64encode(each.astype("<f4").tobytes()).decode() for key, each in values.items()}
        return cls.model_validate({"values": packed, **about})

    def array(self, key: str) -> Float64Array:
        """Return a metric of the split and of each resample (1 + R,); empty if the metric is not known."""
        return np.frombuffer(base64.b64decode(self.values.get(key, "")), "<f4").astype(np.float64)

    def interval(self, key: str) -> Interval | None:
        """Return the interval of a metric, inside 0 to 1; None if it is not known or not defined."""
        found = normal_interval(self.array(key), self.images_with_objects)
        return found and Interval(min(1.0, max(0.0, found.low)), min(1.0, max(0.0, found.high)), found.images)

    def intervals(self) -> dict[str, list[float]]:
        """Return both ends of each interval that is known, by the key of the metric."""
        found = {key: self.interval(key) for key in self.values}
        return {key: [round(each.low, 6), round(each.high, 6)] for key, each in found.items() if each}

    def loss_interval(self, baseline: Resamples, key: str = "AP") -> Interval | None:
        """Return the interval of the loss against a baseline; None if the baseline has resamples of other images."""
        if (self.drawn_from, self.seed, self.images) != (baseline.drawn_from, baseline.seed, baseline.images):
            return None
        mine, other = self.array(key), baseline.array(key)
        count = min(len(mine), len(other))
        return normal_interval(other[:count] - mine[:count], self.images_with_objects)


def normal_interval(values: Float64Array, images: int) -> Interval | None:
    """Return the interval of a metric or a difference, given its value and those of resamples (1 + R,).

    Returns None if the value, or more than half of the resamples, are not defined.
    """
    resampled = values[1:][np.isfinite(values[1:])]
    if not len(resampled) or not np.isfinite(values[0]) or len(resampled) < (len(values) - 1) / 2:
        return None
    bias, spread = resampled.mean() - values[0], resampled.std()
    reach = NormalDist().inv_cdf((1 + LEVEL) / 2) * spread
    return Interval(float(values[0] - bias - reach), float(values[0] - bias + reach), images)


def resamples_in(metrics: Mapping[str, Any]) -> Resamples | None:
    """Return the resamples in the metrics of a record; None if the record was written by an earlier version."""
    found = metrics.get("resamples")
    return Resamples.model_validate(found) if found else None
