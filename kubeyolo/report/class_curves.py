"""Curves of classes in a chart: in colours, as thin lines behind their mean, or as quantiles if there are many."""

from __future__ import annotations

import numpy as np

from kubeyolo.arrays import Float64Array
from kubeyolo.report.charts import Series

COLORED_CURVES = 8
"""Most classes whose curves have colours; with more classes, all curves are thin lines behind their mean."""

MOST_CURVES = 100
"""Most classes whose curves are drawn; with more classes, quantiles over the classes are drawn."""

_QUANTILES = (0.1, 0.5, 0.9)


def class_series(names: list[str], x: Float64Array, curves: Float64Array) -> tuple[list[Series], str]:
    """Return the series of a chart, and a note that explains them; empty if their names explain them.

    Args:
        names: Name of each class.
        x: Positions of the values (points,).
        curves: (classes, points), without NaN.
    """
    if len(names) <= COLORED_CURVES:
        return [
            Series(name, x, curve, index) for index, (name, curve) in enumerate(zip(names, curves, strict=True))
        ], ""
    mean = Series(f"mean of {len(names)} classes", x, curves.mean(axis=0), 0)
    if len(names) <= MOST_CURVES:
        thin = [Series(name, x, curve, None, faint=True) for name, curve in zip(names, curves, strict=True)]
        return [*thin, mean], "Thin lines: classes. Thick line: mean over the classes."
    values = np.quantile(curves, _QUANTILES, axis=0)
    shares = ("10 % of the classes are below", "half of the classes are below", "90 % of the classes are below")
    return [
        *(Series(name, x, curve, i + 1) for i, (name, curve) in enumerate(zip(shares, values, strict=True))),
        mean,
    ], ""
