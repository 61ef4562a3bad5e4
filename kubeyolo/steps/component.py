"""The steps as Kubeflow components call them: settings and references in; references and artifacts out.

The bodies in ``components/`` are one call into this module, with the same parameters. kfp is not imported: its
artifacts are known by what they can do (see :mod:`kubeyolo.steps.reporting`). ``settings`` are made by ``configure``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from kubeyolo.bundle import MODEL_CARD, ONNX, ONNX_INT8, BundleFile, BundleManifest, open_manifest
from kubeyolo.catalogue import DETECTOR_RETRAINING, DETECTOR_TRAINING, MODEL_EVALUATION
from kubeyolo.evaluation.names import MEASURED, RuntimeName
from kubeyolo.index import RUN_ID, run_output, write_note
from kubeyolo.steps.outputs import backbone_output, result_output, training_output
from kubeyolo.steps.record import read_record, write_record, write_report
from kubeyolo.steps.reporting import (
    ConfusionArtifact,
    FileArtifact,
    HandleArtifact,
    MetricsArtifact,
    StepReporter,
    reported,
)
from kubeyolo.steps.settings import StepSettings, read_sections
from kubeyolo.storage.reference import split_reference
from kubeyolo.storage.uri import join_uri, read_document

if TYPE_CHECKING:
    from kubeyolo.steps.configure import ConfiguredRun

Struct = Mapping[str, Any]

_MEGABYTE = 1e6
_MOST_CHARACTERS = 1000


def configure_training(*, plan: FileArtifact, **form: str) -> tuple[Struct | str, ...]:
    """Resolve and check a training; return the struct of the run, the settings of each step, and the record."""
    run, record = _configure(DETECTOR_TRAINING, form, plan)
    return run.struct(), *_structs(run), record


def configure_retraining(*, plan: FileArtifact, **form: str) -> tuple[Struct | str, ...]:
    """Resolve and check a retraining; the last but one value is the data, or empty when there is nothing to do."""
    run, record = _configure(DETECTOR_RETRAINING, form, plan)
    return run.struct(), *_structs(run), run.data if run.has_work else "", record


def configure_evaluation(*, plan: FileArtifact, **form: str) -> tuple[Struct | str, ...]:
    """Resolve and check an evaluation; return structs, the references of bundle and baseline, and the record."""
    run, record = _configure(MODEL_EVALUATION, form, plan)
    return run.struct(), *_structs(run), run.bundle, run.baseline, record


def validate_dataset(
    *, settings: Struct, validated_dataset: HandleArtifact, data_report: FileArtifact, data_findings: FileArtifact
) -> tuple[str, str]:
    """Validate and store a data set; return the references of the data set and of the record."""
    from kubeyolo.data.folder import dataset_name
    from kubeyolo.report.findings import findings_table
    from kubeyolo.steps import validate as step

    with _step(step.STEP, settings) as (reporter, given):
        digests = {"fingerprint": given.fingerprint}
        output = result_output(given.store, step.STEP, dataset_name(given.data), digests, given.config, given.code)
        reporter.write_to(output)
        outcome = step.validate_dataset(given.data, given.store, output, given.fingerprint, given.configuration())
        record = reporter.publish(outcome.record, data_report)
        reporter.publish_text(findings_table(record.metrics["findings"]), data_findings)
        figures = {name: value for name, value in record.metrics.items() if name not in ("digest", "findings")}
        reporter.publish_handle(outcome.dataset, validated_dataset, **figures)
    return outcome.dataset, outcome.record


def pretrain_backbone(*, settings: Struct, dataset: str, backbone_curves: FileArtifact) -> tuple[str, str]:
    """Pretrain the backbone; return the references of its bundle, empty when that is off, and of the record."""
    from kubeyolo.steps import pretrain as step

    with _step(step.STEP, settings) as (reporter, given):
        config = given.configuration()
        images = given.fingerprint or split_reference(dataset)[1]
        output = backbone_output(given.store, config, images, given.code)
        begin = partial(reporter.write_to, output)
        outcome = step.pretrain_backbone(dataset, output, config, begin, given.fingerprint)
        reporter.publish(outcome.record, backbone_curves)
    return outcome.backbone, outcome.record


def train(
    *, settings: Struct, dataset: str, backbone: str, trained_detector: HandleArtifact, training_curves: FileArtifact
) -> tuple[str, str]:
    """Train the detector, from its newest checkpoint where there is one; return references of bundle and record."""
    from kubeyolo.launch.launcher import checked_settings, training_launcher, training_writer
    from kubeyolo.steps import train as step

    with _step(step.STEP, settings) as (reporter, given):
        config = given.configuration()
        launch = training_launcher(given.launcher, checked_settings(given.launcher, given.cluster))
        output = training_output(given.store, config, split_reference(dataset)[1], backbone, given.code)
        writer = training_writer(given.launcher, os.environ.get(RUN_ID, ""))
        begin = partial(reporter.write_to, output)
        outcome = step.train(dataset, output, config, backbone, begin, launch, writer)
        record = reporter.publish(outcome.record, training_curves)
        figures = {"steps": record.metrics.get("steps"), "loss": record.metrics.get("loss")}
        facts = {"model": given.model, "classes": _listed(open_manifest(outcome.bundle))}
        reporter.publish_handle(outcome.bundle, trained_detector, **facts, **figures)
    return outcome.bundle, outcome.record


def evaluate(
    *,
    settings: Struct,
    bundle: str,
    dataset: str,
    evaluation_report: FileArtifact,
    confusion_matrix: ConfusionArtifact,
) -> tuple[str]:
    """Evaluate a network of a bundle; return the reference of the record."""
    from kubeyolo.evaluation.names import check_runtime
    from kubeyolo.steps import evaluate as step

    with _step(step.STEP, settings) as (reporter, given):
        runtime = check_runtime(given.runtime or "mindspore")
        output = evaluation_output(given, bundle, dataset, runtime)
        reporter.write_to(output)
        outcome = step.evaluate(bundle, dataset, output, given.configuration(), runtime)
        reporter.publish(outcome.record, evaluation_report, given.index)
        reporter.publish_confusion(join_uri(output, step.CONFUSION_NAME), confusion_matrix)
    return (outcome.record,)


def export_model(
    *, settings: Struct, bundle: str, dataset: str, exported_detector: HandleArtifact, export_report: FileArtifact
) -> tuple[str, str]:
    """Export the trained network; return the references of the bundle with the exported files and of the record."""
    from kubeyolo.steps import export as step

    with _step(step.STEP, settings) as (reporter, given):
        output = _derived_output(step.STEP, given, bundle, dataset)
        reporter.write_to(output)
        outcome = step.export_model(bundle, dataset, output, given.configuration())
        record = reporter.publish(outcome.record, export_report)
        figures = {"model": given.model, "AP_onnx": record.metrics.get("onnx", {}).get("AP")}
        reporter.publish_handle(outcome.bundle, exported_detector, **figures)
    return outcome.bundle, outcome.record


def quantize(
    *,
    settings: Struct,
    bundle: str,
    dataset: str,
    quantized_detector: HandleArtifact,
    quantization_report: FileArtifact,
) -> tuple[str, str]:
    """Quantize the exported network; return the references of the bundle with the int8 network and of the record."""
    from kubeyolo.steps import quantize as step

    with _step(step.STEP, settings) as (reporter, given):
        output = _derived_output(step.STEP, given, bundle, dataset)
        reporter.write_to(output)
        outcome = step.quantize(bundle, dataset, output, given.configuration())
        record = reporter.publish(outcome.record, quantization_report)
        metrics = record.metrics
        figures = {"AP_int8": metrics["int8"].get("AP"), "drop_points": metrics["drop"]}
        reporter.publish_handle(outcome.bundle, quantized_detector, model=given.model, **figures)
    return outcome.bundle, outcome.record


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
    from kubeyolo.steps import publish as step

    with _step(step.STEP, settings) as (reporter, given):
        outcome = step.publish(bundle, given.store, given.version, evaluation)
        reporter.keep(outcome.record, given.index)
        _publish_model(reporter, outcome.bundle, outcome.record, training, published_detector, model_card, summary)
    return outcome.bundle, outcome.record


def evaluate_current(*, settings: Struct, dataset: str, current_model_report: FileArtifact) -> tuple[str]:
    """Evaluate the current model, where there is one, as the new one is evaluated; return the record."""
    from kubeyolo.steps import current as step

    with _step(step.STEP, settings) as (reporter, given):
        output = evaluation_output(given, given.current, dataset, "onnx", step.STEP)
        reporter.write_to(output)
        outcome = step.evaluate_current(
            given.current,
            dataset,
            output,
            given.configuration(),
            lambda runtime: evaluation_output(given, given.current, dataset, runtime),
        )
        reporter.publish(outcome.record, current_model_report)
    return (outcome.record,)


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
    from kubeyolo.steps import promote as step

    with _step(step.STEP, settings) as (reporter, given):
        config = given.configuration()
        output = _derived_output(step.STEP, given, bundle, dataset)
        reporter.write_to(output)
        candidate = step.Candidate(
            bundle=bundle,
            evaluation=evaluation,
            data=given.data,
            fingerprint=given.fingerprint,
            dataset_digest=split_reference(dataset)[1],
        )
        outcome = step.promote(candidate, current, given.latest, given.store, output, config)
        reporter.keep(outcome.record, given.index)
        _publish_model(reporter, outcome.bundle, outcome.record, training, published_detector, model_card, summary)
    return outcome.bundle, outcome.record


def evaluation_output(
    given: StepSettings, bundle: str, dataset: str, runtime: RuntimeName, step: str = "evaluate"
) -> str:
    """Return the URI of the folder of an evaluation: of a network of a bundle on a data set, with these settings."""
    digests = {"bundle": split_reference(bundle)[1], "dataset": split_reference(dataset)[1], "runtime": runtime}
    return _output(step, given, digests, "evaluate")


def _derived_output(step: str, given: StepSettings, bundle: str, dataset: str) -> str:
    return _output(step, given, {"bundle": split_reference(bundle)[1], "dataset": split_reference(dataset)[1]}, step)


def _output(step: str, given: StepSettings, digests: Mapping[str, str], reads: str) -> str:
    """Return the URI of the folder of a step.

    The values are those of the checked configuration: on their way through a pipeline whole numbers become 8.0, or 8.
    """
    sections = read_sections(given.configuration(), reads)
    return result_output(given.store, step, given.model, digests, sections, given.code)


def _configure(pipeline: str, form: Mapping[str, str], plan: FileArtifact) -> tuple[ConfiguredRun, str]:
    """Configure a run, note it in the store, and return it with the reference of the record."""
    from kubeyolo.report.configuration import configuration_report, plan_text
    from kubeyolo.steps import configure as step
    from kubeyolo.steps.record import Stopwatch

    with reported(step.STEP) as reporter:
        watch, run_id = Stopwatch(), os.environ.get(RUN_ID, "")
        run = step.configure(pipeline, form, is_remote=bool(run_id), mark_store=True)
        for line in run.lines():
            print(line, flush=True)
        output, view = run_output(run.store, run.name, step.STEP), run.view()
        reporter.write_to(output)
        report = write_report(output, configuration_report(view))
        if run_id:
            note = {"name": run.name, "pipeline": pipeline, "index": run.index}
            write_note(run.store, run_id, note | {name: run.facts[name] for name in ("latest",) if name in run.facts})
        metrics: dict[str, Any] = {"name": run.name, "changed": len(view.changed)}
        metrics |= {"estimate": run.estimate.span} if run.estimate and run.has_work else {}
        record = write_record(output, step.STEP, watch.seconds, {"data": run.data}, metrics, report)
        reporter.keep(record)
        reporter.publish_text(plan_text(view), plan)
    return run, record


def _structs(run: ConfiguredRun) -> list[Struct]:
    """Return the settings of each step of a run, in the order of the outputs of ``configure``."""
    return [settings.struct() for settings in run.settings.values()]


@contextmanager
def _step(name: str, settings: Struct) -> Iterator[tuple[StepReporter, StepSettings]]:
    """Give the reporter of a step and its settings, read at the door; fail as steps do."""
    with reported(name) as reporter:
        yield reporter, StepSettings.parse(settings, name)


def _publish_model(
    reporter: StepReporter,
    bundle: str,
    record: str,
    training: str,
    handle: HandleArtifact,
    card: FileArtifact,
    summary: MetricsArtifact,
) -> None:
    """Fill the artifacts of what was published: a handle, the model card, and the figures of the whole run."""
    manifest, numbers = open_manifest(bundle), read_record(record).metrics
    files = manifest.model_files
    ap = {name: (numbers.get(name) or {}).get("AP") for name in MEASURED}
    figures: dict[str, float | None] = {
        "AP": ap["mindspore"],
        "AP50": (numbers.get("mindspore") or {}).get("AP50"),
        "AP_onnx": ap["onnx"],
        "AP_int8": ap["int8"],
        "drop_points": _drop(ap["onnx"], ap["int8"]),
        "onnx_MB": _megabytes(files.get(ONNX)),
        "int8_MB": _megabytes(files.get(ONNX_INT8)),
        "training_seconds": read_record(training).seconds if training else None,
    }
    facts = {"model": manifest.model, "version": numbers.get("version"), "classes": _listed(manifest)}
    reporter.publish_handle(bundle, handle, **facts, AP=ap["mindspore"], AP_onnx=ap["onnx"], AP_int8=ap["int8"])
    text = read_document(join_uri(split_reference(bundle)[0], manifest.key(MODEL_CARD)))
    reporter.publish_text(text.decode(), card)
    reporter.publish_summary(figures, summary)


def _listed(manifest: BundleManifest) -> str:
    """Return the names of the classes as one text; a page of Kubeflow has no room for thousands."""
    return ", ".join(manifest.classes)[:_MOST_CHARACTERS]


def _megabytes(file: BundleFile | None) -> float | None:
    return None if file is None else file.size / _MEGABYTE


def _drop(before: float | None, after: float | None) -> float | None:
    """Return the loss of AP in points; None where one of them is not defined."""
    return None if before is None or after is None else (before - after) * 100
