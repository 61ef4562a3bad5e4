"""The results of a run on the cluster, read from the store: the metrics of its networks, and its bundle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kubeyolo.bundle import LEFT_OUT
from kubeyolo.errors import KubeyoloError, one_line
from kubeyolo.evaluation.results import COCO_KEYS
from kubeyolo.events import StepRecord
from kubeyolo.index import STORE, read_index, read_note
from kubeyolo.kubeflow.remote import RemoteRun
from kubeyolo.pointers import pointed_bundle
from kubeyolo.storage.place import Place, Stores

NETWORKS = {"trained": "mindspore", "ONNX": "onnx", "int8": "int8"}
"""Runtime of each network of a bundle, by the name of the network in tables."""


@dataclass(frozen=True)
class RemoteResult:
    """The results of a run.

    Attributes:
        bundle: URI of the published bundle.
        current: URI of the current model after a retraining.
        numbers: COCO metrics by network.
        note: A remark on the metrics, or the reason why there are no metrics.
    """

    bundle: str = ""
    current: str = ""
    numbers: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    note: str = ""


def remote_result(run: RemoteRun) -> RemoteResult | None:
    """Return the results of a run, or None if it has not succeeded or its pipeline publishes nothing."""
    if run.state != "SUCCEEDED":
        return None
    ended = {step.name for step in run.steps if step.state == "SUCCEEDED"}
    is_retraining = "pointer" in run.arguments
    if not is_retraining and "publish" not in ended:
        return None
    named = str(run.arguments.get("store") or os.environ.get(STORE, ""))
    if not named:
        return RemoteResult(note=f"the run uses the store of the cluster; set {STORE} to its URI to see the results")
    try:
        store = Place.of(named)
        note = read_note(store, run.id)
        if is_retraining and "promote" not in ended:
            current = pointed_bundle(store.at(note["latest"])).uri if note.get("latest") else ""
            return RemoteResult(current=current, note="unchanged: the current model was trained on this data")
        index = store.at(note["index"])
        if _is_later(index, run.ended):
            return RemoteResult(note=f"a later run with the same name has replaced the results: {index}")
        return _made(read_index(index), is_retraining)
    except KeyError as error:
        return RemoteResult(note=f"cannot read its results on this machine: its record in the store has no {error}")
    except KubeyoloError as error:
        return RemoteResult(note=f"cannot read its results on this machine: {one_line(error, 300)}")


def evaluation_records(indexes: Mapping[str, str]) -> dict[str, StepRecord]:
    """Return the record of each evaluation of a run of the evaluation pipeline.

    Args:
        indexes: URI of the copy of the record, by task: ``evaluate``, and ``evaluate_baseline`` if there is a baseline.

    Raises:
        InputError: A record is missing or damaged.
    """
    stores = Stores()
    return {task: read_index(stores.place(uri)) for task, uri in indexes.items()}


def _is_later(index: Place, ended: datetime | None) -> bool:
    """Tell whether an index was written after the end of a run: by a later run with the same settings and data."""
    written = next((stored.modified for stored in index.parent.store.list() if stored.key == index.name), None)
    return written is not None and ended is not None and written > ended


def _made(record: StepRecord, is_retraining: bool) -> RemoteResult:
    bundle = Place.of(record.outputs["bundle"]).uri
    found = {name: _numbers(record.metrics.get(runtime)) for name, runtime in NETWORKS.items()}
    numbers = {name: each for name, each in found.items() if each}
    if is_retraining:
        return RemoteResult(bundle=bundle, current=bundle, numbers=numbers, note="the new model is the current model")
    left_out = record.metrics.get(LEFT_OUT) or {}
    note = "; ".join(f"the {name} network is left out: {why}" for name, why in left_out.items())
    return RemoteResult(bundle=bundle, numbers=numbers, note=note)


def _numbers(found: Any) -> dict[str, float | None]:
    return {key: found.get(key) for key in COCO_KEYS} if isinstance(found, Mapping) else {}
