"""Curves of a training as TensorBoard reads them."""

from __future__ import annotations

from pathlib import Path


def curves_of(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the points that TensorBoard shows, by curve."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {tag: [(point.step, point.value) for point in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}
