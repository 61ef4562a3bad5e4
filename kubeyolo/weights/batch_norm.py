"""What batch normalisation adds to the variance, taken into the variance itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kubeyolo.arrays import Float32Array
from kubeyolo.weights.stored_array import WeightArray, as_float32


def move_eps(variances: Mapping[str, WeightArray], added: float, to_be_added: float) -> dict[str, Float32Array]:
    """Return variances that give the same with another constant: σ² + added = (σ² + added − to be added) + to be added.

    Args:
        variances: Running variances by name.
        added: What is added to them where the weights come from.
        to_be_added: What is added to them where the weights go.
    """
    return {name: as_float32(array) + np.float32(added - to_be_added) for name, array in variances.items()}
