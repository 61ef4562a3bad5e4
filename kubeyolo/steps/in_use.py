"""evaluate_in_use: the COCO numbers of the model in use on the data set that another one is trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubeyolo.bundle import ONNX, ONNX_INT8, Bundle
from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError
from kubeyolo.evaluation.names import RuntimeName
from kubeyolo.steps.record import Stopwatch, write_record
from kubeyolo.storage.uri import join_uri

if TYPE_CHECKING:
    from kubeyolo.data.dataset import Dataset

STEP = "evaluate_in_use"

NETWORKS: dict[RuntimeName, str] = {"onnx": ONNX, "int8": ONNX_INT8}
"""The networks of a bundle that are deployed, by what runs them: those are compared, each with its like."""


@dataclass(frozen=True, kw_only=True)
class InUse:
    """COCO numbers of the model in use by runtime, none where no model is in use, and the URI of the record."""

    numbers: dict[str, dict[str, float | None]]
    record: str
    seconds: float


def evaluate_in_use(bundle: str, dataset: str, output: str, config: Config) -> InUse:
    """Evaluate the ONNX and the int8 network of the model in use.

    It is done before the training: what cannot be compared is known by then.

    Args:
        bundle: URI of the bundle in use; empty for none.
        dataset: URI of the stored data set.
        output: URI of the folder that receives metrics.json, and a folder for each network.
        config: Its section ``evaluate`` counts, that of the new model, but for its gate.

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
        # It is in use, whatever a gate says of it by now.
        ungated = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"min_ap": 0.0})})
        for runtime, file in NETWORKS.items():
            if file in opened.manifest.files:
                evaluated = evaluate(bundle, dataset, join_uri(output, runtime), ungated, runtime)
                numbers[runtime], report = evaluated.result.numbers, evaluated.report
                print(f"in use, {runtime}: AP is {_text(numbers[runtime]['AP'])}", flush=True)
    else:
        print("no model is in use: there is nothing to compare with", flush=True)
    seconds = watch.seconds
    metrics: dict[str, Any] = {**numbers}
    return InUse(
        numbers=numbers,
        record=write_record(output, STEP, seconds, {"bundle": bundle}, metrics, report),
        seconds=seconds,
    )


def _check_comparable(bundle: Bundle, dataset: Dataset) -> None:
    remedy = "remove its pointer to begin anew, or name another one by the parameter 'latest'"
    manifest = bundle.manifest
    if not set(NETWORKS.values()) & manifest.files.keys():
        raise InputError(f"{bundle.uri}: the model in use has no ONNX network to compare with; {remedy}")
    if tuple(manifest.classes) != tuple(dataset.manifest.classes):
        differ = sorted(set(manifest.classes) ^ set(dataset.manifest.classes)) or ["their order"]
        raise InputError(
            f"{bundle.uri}: the model in use knows other classes than {dataset.uri} has "
            f"({', '.join(map(str, differ[:5]))}), so that they cannot be compared; {remedy}"
        )


def _text(ap: float | None) -> str:
    from kubeyolo.evaluation.limits import number_text

    return number_text(ap)
