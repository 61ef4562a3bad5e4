"""The numbers that a run of the evaluation pipeline leaves in the store."""

from __future__ import annotations

from collections.abc import Mapping

from kubeyolo.evaluation.results import COCO_KEYS
from kubeyolo.index import read_index


def evaluation_numbers(indexes: Mapping[str, str]) -> dict[str, dict[str, float | None]]:
    """Return the COCO numbers of each evaluation of a run.

    Args:
        indexes: URI of the copy of the record, by task: ``evaluate``, and ``evaluate_baseline`` with a baseline.

    Raises:
        InputError: They are not there, or not records.
    """
    records = {task: read_index(uri) for task, uri in indexes.items()}
    return {task: {key: record.metrics.get(key) for key in COCO_KEYS} for task, record in records.items()}
