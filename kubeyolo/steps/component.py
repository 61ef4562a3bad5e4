"""The steps as Kubeflow components call them: they take settings and references, and return references and artifacts.

Each body in ``components/`` is one call into this module, with the same parameters. kfp is not imported: its artifacts
are described by protocols in :mod:`kubeyolo.steps.reporting`. The step ``configure`` makes the ``settings``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kubeyolo.bundle import MODEL_CARD, ONNX, ONNX_INT8, BundleFile, BundleManifest
from kubeyolo.catalogue import DETECTOR_RETRAINING, DETECTOR_TRAINING, MODEL_EVALUATION
from kubeyolo.evaluation.limits import points_lost
from kubeyolo.evaluation.results import MEASURED, check_runtime
from kubeyolo.index import RUN_ID
from kubeyolo.launch.launcher import find_launcher
from kubeyolo.report.configuration import plan_text
from kubeyolo.report.findings import findings_table
from kubeyolo.steps import configure as configure_step
from kubeyolo.steps import facade
from kubeyolo.steps.call import StepCall
from kubeyolo.steps.configured_run import ConfiguredRun
from kubeyolo.steps.evaluate import CONFUSION_NAME
from kubeyolo.steps.outcome import StoredOutcome, read_record
from kubeyolo.steps.reporting import (
    ConfusionArtifact,
    FileArtifact,
    HandleArtifact,
    MetricsArtifact,
    StepReporter,
    reported,
)
from kubeyolo.steps.settings import StepSettings
from kubeyolo.storage.place import Place

Struct = Mapping[str, Any]

_MEGABYTE = 1e6
_MOST_CHARACTERS = 1000


def configure_training(*, plan: FileArtifact, **form: str) -> tuple[Struct | str, ...]:
    """Resolve and check a training; return the struct of the run, the settings of each step, and the record."""
    run, record = _configure(DETECTOR_TRAINING, form, plan)
    return run.struct(), *_structs(run), record


def configure_retraining(*, plan: FileArtifact, **form: str) -> tuple[Struct | str, ...]:
    """Resolve and check a retraining; the second-to-last value is the data, empty if no training is needed."""
    run, record = _configure(DETECTOR_RETRAINING, form, plan)
    return run.struct(), *_structs(run), run.data if run.has_work else "", record


def configure_evaluation(*, plan: FileArtifact, **form: str) -> tuple[Struct | str, ...]:
    """Resolve and check an evaluation; return structs, the references of bundle and baseline, and the record."""
    run, record = _configure(MODEL_EVALUATION, form, plan)
    references = [each.reference if each else "" for each in (run.bundle, run.baseline)]
    return run.struct(), *_structs(run), *references, record


def validate_dataset(
    *, settings: Struct, validated_dataset: HandleArtifact, data_report: FileArtifact, data_findings: FileArtifact
) -> tuple[str, str]:
    """Validate and store a data set; return the references of the data set and of the record."""
    with _step("validate_dataset", settings) as (reporter, parsed, call):
        stored = facade.validate_dataset(call, parsed.data, parsed.fingerprint)
        metrics, dataset = stored.record.metrics, stored.record.outputs["dataset"]
        reporter.publish(stored, data_report)
        reporter.publish_text(findings_table(metrics["findings"]), data_findings)
        figures = {name: value for name, value in metrics.items() if name not in ("digest", "findings", "warnings")}
        reporter.publish_handle(stored.place.at(dataset), validated_dataset, **figures)
    return dataset, stored.reference


def pretrain_backbone(*, settings: Struct, dataset: str, backbone_curves: FileArtifact) -> tuple[str, str]:
    """Pretrain the backbone; return the references of its bundle (empty if pretraining is off) and of the record."""
    with _step("pretrain_backbone", settings) as (reporter, parsed, call):
        launcher = find_launcher(parsed.launcher, parsed.cluster, must_run=True)
        stored = facade.pretrain_backbone(call, call.dataset(dataset), launcher, parsed.fingerprint)
        reporter.publish(stored, backbone_curves)
    return stored.record.outputs["backbone"], stored.reference


def train(
    *, settings: Struct, dataset: str, backbone: str, trained_detector: HandleArtifact, training_curves: FileArtifact
) -> tuple[str, str]:
    """Train the detector, from its newest checkpoint if there is one; return references of bundle and record."""
    with _step("train", settings) as (reporter, parsed, call):
        launcher = find_launcher(parsed.launcher, parsed.cluster, must_run=True)
        stored = facade.train(call, call.dataset(dataset), launcher, backbone)
        reporter.publish(stored, training_curves)
        figures = {name: stored.record.metrics.get(name) for name in ("steps", "loss")}
        trained = stored.bundle()
        facts = {"model": parsed.model, "classes": _listed(trained.manifest)}
        reporter.publish_handle(trained.place, trained_detector, **facts, **figures)
    return trained.reference, stored.reference


def evaluate(
    *,
    settings: Struct,
    bundle: str,
    dataset: str,
    evaluation_report: FileArtifact,
    confusion_matrix: ConfusionArtifact,
) -> tuple[str]:
    """Evaluate a network of a bundle; return the reference of the record."""
    with _step("evaluate", settings) as (reporter, parsed, call):
        runtime = check_runtime(parsed.runtime or "mindspore")
        launcher = find_launcher(parsed.launcher, parsed.cluster, must_run=True)
        stored = facade.evaluate(call, call.bundle(bundle), call.dataset(dataset), runtime, launcher)
        reporter.publish(stored, evaluation_report, parsed.index)
        reporter.publish_confusion(stored.document(CONFUSION_NAME), confusion_matrix)
    return (stored.reference,)


def export_model(
    *, settings: Struct, bundle: str, dataset: str, exported_detector: HandleArtifact, export_report: FileArtifact
) -> tuple[str, str]:
    """Export the trained network; return the references of the bundle with the exported files and of the record."""
    with _step("export_model", settings) as (reporter, parsed, call):
        launcher = find_launcher(parsed.launcher, parsed.cluster, must_run=True)
        stored = facade.export_model(call, call.bundle(bundle), call.dataset(dataset), launcher)
        reporter.publish(stored, export_report)
        exported, onnx = stored.record.outputs["bundle"], stored.record.metrics.get("onnx", {})
        reporter.publish_handle(call.store.at(exported), exported_detector, model=parsed.model, AP_onnx=onnx.get("AP"))
    return exported, stored.reference


def quantize(
    *,
    settings: Struct,
    bundle: str,
    dataset: str,
    quantized_detector: HandleArtifact,
    quantization_report: FileArtifact,
) -> tuple[str, str]:
    """Quantize the exported network; return the references of the bundle with the int8 network and of the record."""
    with _step("quantize", settings) as (reporter, parsed, call):
        launcher = find_launcher(parsed.launcher, parsed.cluster, must_run=True)
        stored = facade.quantize(call, call.bundle(bundle), call.dataset(dataset), launcher)
        reporter.publish(stored, quantization_report)
        quantized, metrics = stored.record.outputs["bundle"], stored.record.metrics
        figures = {"AP_int8": metrics.get("int8", {}).get("AP"), "drop_points": metrics.get("drop")}
        reporter.publish_handle(call.store.at(quantized), quantized_detector, model=parsed.model, **figures)
    return quantized, stored.reference


def publish(
    *,
    settings: Struct,
    bundle: str,
    evaluation: str,
    training: str,
    published_detector: HandleArtifact,
    model_card: FileArtifact,
    summary: MetricsArtifact,
) -> tuple[str, str]:
    """Publish the bundle under its version, with a model card; return the references of bundle and record."""
    with _step("publish", settings) as (reporter, parsed, call):
        stored = facade.publish(call, call.bundle(bundle), parsed.version, evaluation)
        _publish_model(reporter, stored, parsed.index, training, published_detector, model_card, summary)
    return stored.record.outputs["bundle"], stored.reference


def evaluate_current(*, settings: Struct, dataset: str, current_model_report: FileArtifact) -> tuple[str]:
    """Evaluate the current model, if there is one, with the settings of the new model; return the record."""
    with _step("evaluate_current", settings) as (reporter, parsed, call):
        bundle = call.bundle(parsed.current) if parsed.current else None
        stored = facade.evaluate_current(call, bundle, call.dataset(dataset))
        reporter.publish(stored, current_model_report)
    return (stored.reference,)


def promote(
    *,
    settings: Struct,
    bundle: str,
    evaluation: str,
    training: str,
    current: str,
    dataset: str,
    published_detector: HandleArtifact,
    model_card: FileArtifact,
    summary: MetricsArtifact,
) -> tuple[str, str]:
    """Publish a bundle that is not worse than the current model, and make it current; return references."""
    with _step("promote", settings) as (reporter, parsed, call):
        data = {"dataset": dataset, "data": parsed.data, "fingerprint": parsed.fingerprint}
        stored = facade.promote(call, call.bundle(bundle), evaluation, current, parsed.latest, **data)
        _publish_model(reporter, stored, parsed.index, training, published_detector, model_card, summary)
    return stored.record.outputs["bundle"], stored.reference


def _configure(pipeline: str, form: Mapping[str, str], plan: FileArtifact) -> tuple[ConfiguredRun, str]:
    """Configure a run, and return it with the reference of the record."""
    with reported(configure_step.STEP) as reporter:
        run, stored = facade.configure(pipeline, form, os.environ.get(RUN_ID, ""), reporter.write_to)
        reporter.keep(stored)
        reporter.publish_text(plan_text(run.view()), plan)
    return run, stored.reference


def _structs(run: ConfiguredRun) -> list[Struct]:
    """Return the settings of each step of a run, in the order of the outputs of ``configure``."""
    return [settings.struct() for settings in run.settings.values()]


@contextmanager
def _step(name: str, settings: Struct) -> Iterator[tuple[StepReporter, StepSettings, StepCall]]:
    """Yield the reporter of a step, its settings and its call; an error ends the process, see :func:`reported`."""
    with reported(name) as reporter:
        parsed = StepSettings.parse(settings, name)
        store, config = Place.of(parsed.store), parsed.configuration()
        yield reporter, parsed, StepCall(store=store, config=config, code=parsed.code, begin=reporter.write_to)


def _publish_model(
    reporter: StepReporter,
    stored: StoredOutcome,
    index: str,
    training: str,
    handle: HandleArtifact,
    card: FileArtifact,
    summary: MetricsArtifact,
) -> None:
    """Remember the record, and fill the artifacts of a published bundle: handle, model card, metrics of the run."""
    reporter.keep(stored, index)
    bundle, numbers = stored.bundle(), stored.record.metrics
    files = bundle.manifest.model_files
    ap = {name: (numbers.get(name) or {}).get("AP") for name in MEASURED}
    figures: dict[str, float | None] = {
        "AP": ap["mindspore"],
        "AP50": (numbers.get("mindspore") or {}).get("AP50"),
        "AP_onnx": ap["onnx"],
        "AP_int8": ap["int8"],
        "drop_points": points_lost(ap["int8"], ap["onnx"]),
        "onnx_MB": _megabytes(files.get(ONNX)),
        "int8_MB": _megabytes(files.get(ONNX_INT8)),
        "training_seconds": read_record(bundle.place.at(training)).seconds if training else None,
    }
    facts = {"model": bundle.manifest.model, "version": numbers.get("version"), "classes": _listed(bundle.manifest)}
    ap_figures = {"AP": ap["mindspore"], "AP_onnx": ap["onnx"], "AP_int8": ap["int8"]}
    reporter.publish_handle(bundle.place, handle, **facts, **ap_figures)
    reporter.publish_text(bundle.file_place(MODEL_CARD).read().decode(), card)
    reporter.publish_summary(figures, summary)


def _listed(manifest: BundleManifest) -> str:
    """Return the names of the classes as one text, not all if there are many: a page of Kubeflow has little room."""
    return ", ".join(manifest.classes)[:_MOST_CHARACTERS]


def _megabytes(file: BundleFile | None) -> float | None:
    return None if file is None else file.size / _MEGABYTE
