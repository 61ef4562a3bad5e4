"""evaluate_current: the COCO numbers of the current model on the data set that another one is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubeyolo.bundle import ONNX, ONNX_INT8, Bundle
from kubeyolo.config.class_names import clean_names, same_names
from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError
from kubeyolo.evaluation.names import RuntimeName
from kubeyolo.steps.record import Stopwatch, write_record

if TYPE_CHECKING:
    from kubeyolo.data.dataset import Dataset

STEP = "evaluate_current"

NETWORKS: dict[RuntimeName, str] = {"onnx": ONNX, "int8": ONNX_INT8}
"""The networks of a bundle that are deployed, by what runs them: each is compared with the one of the same kind."""


@dataclass(frozen=True, kw_only=True)
class CurrentModel:
    """COCO numbers of the current model by runtime, none without a current model, and the reference of the record."""

    numbers: dict[str, dict[str, float | None]]
    record: str
    report: str


def evaluate_current(
    bundle: str, dataset: str, output: str, config: Config, place: Callable[[RuntimeName], str]
) -> CurrentModel:
    """Evaluate the ONNX and the int8 network of the current model.

    It runs before the training, so that a model that cannot be compared is refused early.

    Args:
        bundle: URI or reference of the current bundle; empty for none.
        dataset: URI or reference of the stored data set.
        output: URI of the folder that receives metrics.json.
        config: Its section ``evaluate`` counts, that of the new model, but for its gate.
        place: Returns the URI of the folder of the evaluation by a runtime.

    Raises:
        InputError: The bundle has neither network, or was trained on other classes.
    """
    from kubeyolo.bundle import open_bundle
    from kubeyolo.data.dataset import open_dataset
    from kubeyolo.steps.evaluate import evaluate

    watch = Stopwatch()
    numbers: dict[str, dict[str, float | None]] = {}
    report = ""
    if bundle:
        opened = open_bundle(bundle)
        _check_comparable(opened, open_dataset(dataset))
        # It is the current model, whatever a gate says of it by now.
        ungated = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"min_ap": 0.0})})
        for runtime, file in NETWORKS.items():
            if file in opened.manifest.files:
                evaluated = evaluate(bundle, dataset, place(runtime), ungated, runtime)
                numbers[runtime], report = evaluated.result.numbers, evaluated.report
                print(f"current model, {runtime}: AP is {_text(numbers[runtime]['AP'])}", flush=True)
    else:
        print("no current model to compare with", flush=True)
    metrics: dict[str, Any] = {**numbers}
    record = write_record(output, STEP, watch.seconds, {"bundle": bundle}, metrics, report)
    return CurrentModel(numbers=numbers, record=record, report=report)


def _check_comparable(bundle: Bundle, dataset: Dataset) -> None:
    remedy = "remove its pointer to start without one, or name another pointer by the setting retrain.latest"
    manifest = bundle.manifest
    if not set(NETWORKS.values()) & manifest.files.keys():
        raise InputError(f"{bundle.uri}: the current model has no ONNX network to compare with; {remedy}")
    if not same_names(manifest.classes, dataset.manifest.classes):
        ours, theirs = clean_names(manifest.classes), clean_names(dataset.manifest.classes)
        differ = sorted(set(ours) ^ set(theirs)) or ["their order"]
        raise InputError(
            f"{bundle.uri}: the current model has other classes than {dataset.uri} "
            f"({', '.join(map(str, differ[:5]))}), so that they cannot be compared; {remedy}"
        )


def _text(ap: float | None) -> str:
    from kubeyolo.evaluation.limits import number_text

    return number_text(ap)
