"""evaluate_current: the COCO metrics of the current model on the data set that the new model is trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kubeyolo.bundle import ONNX, ONNX_INT8, Bundle
from kubeyolo.data.dataset import Dataset
from kubeyolo.errors import InputError
from kubeyolo.evaluation.class_map import difference
from kubeyolo.evaluation.limits import number_text
from kubeyolo.evaluation.results import COCO_KEYS, RuntimeName
from kubeyolo.steps.outcome import StepOutcome, Stopwatch, StoredOutcome

STEP = "evaluate_current"

NETWORKS: dict[RuntimeName, str] = {"onnx": ONNX, "int8": ONNX_INT8}
"""Runtimes of the deployed networks of a bundle; networks of the same runtime are compared."""


def evaluate_current(
    bundle: Bundle | None, dataset: Dataset, evaluate: Callable[[RuntimeName], StoredOutcome]
) -> StepOutcome:
    """Evaluate the ONNX and the int8 network of the current model.

    It runs before the training, so that a model that cannot be compared is refused early.

    Args:
        bundle: The current bundle; None if there is no current model.
        dataset: The stored data set.
        evaluate: Evaluates the network of a runtime, without a gate.

    Raises:
        InputError: The bundle has no ONNX network, or was trained on other classes.
    """
    watch = Stopwatch()
    if bundle is None:
        print("no current model to compare with", flush=True)
        return StepOutcome(step=STEP, seconds=watch.seconds, outputs={"bundle": ""})
    _check_comparable(bundle, dataset)
    numbers: dict[str, dict[str, Any]] = {}
    html = ""
    for runtime, file in NETWORKS.items():
        if file in bundle.manifest.files:
            evaluated = evaluate(runtime)
            numbers[runtime] = {key: evaluated.record.metrics.get(key) for key in (*COCO_KEYS, "resamples")}
            html = evaluated.report().decode()
            print(f"current model, {runtime}: AP is {number_text(numbers[runtime]['AP'])}", flush=True)
    return StepOutcome(step=STEP, seconds=watch.seconds, outputs={"bundle": bundle}, metrics=numbers, html=html)


def _check_comparable(bundle: Bundle, dataset: Dataset) -> None:
    remedy = "remove its pointer to start without a current model, or set retrain.latest to a different pointer"
    manifest = bundle.manifest
    if not set(NETWORKS.values()) & manifest.files.keys():
        raise InputError(f"{bundle.uri}: the current model has no ONNX network to compare with; {remedy}")
    differs = difference(manifest.classes, dataset.manifest.classes, dataset.manifest.name)
    if differs:
        raise InputError(
            f"{bundle.uri}: the current model has different classes from {dataset.uri} ({differs}), so the models "
            f"cannot be compared; {remedy}"
        )
