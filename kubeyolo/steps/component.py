"""The steps as Kubeflow components call them: plain parameters in; URIs, metrics and a report out.

The bodies in ``components/`` are one call into this module. kfp is not imported: its artifacts are known by what they
can do (:class:`MetricsArtifact`, :class:`ReportArtifact`). ``…_overrides`` are values over those of the model's
preset, by key of their section; of the other settings 0 and an empty text leave the preset's value.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from kubeyolo.config.load import load_config
from kubeyolo.config.schema import Config
from kubeyolo.steps.places import backbone_output, run_output, training_output
from kubeyolo.steps.reporting import ConfusionArtifact, MetricsArtifact, ReportArtifact, failing, reported
from kubeyolo.storage.uri import join_uri

Values = Mapping[str, Any]


def validate_dataset(data: str, store: str, metrics: MetricsArtifact, report: ReportArtifact) -> tuple[str, str, str]:
    """Validate and store a data set; return its URI, its digest, and the URI of the step's record."""
    from kubeyolo.steps import validate

    with reported(validate.STEP) as reporter:
        outcome = validate.validate_dataset(data, store)
        reporter.publish(outcome.record, metrics, report)
    return outcome.dataset, outcome.digest, outcome.record


def pretrain_backbone(
    *,
    dataset: str,
    dataset_digest: str,
    store: str,
    model: str,
    classification: str,
    classification_fingerprint: str,
    pretrain_overrides: Values,
    augment_overrides: Values,
    train_overrides: Values,
    seed: int,
    code_digest: str,
    metrics: MetricsArtifact,
    report: ReportArtifact,
) -> tuple[str, str]:
    """Pretrain the backbone; return the URI of its bundle, empty when that is off, and of the step's record."""
    from kubeyolo.steps import pretrain
    from kubeyolo.training.class_images import class_fingerprint

    with reported(pretrain.STEP) as reporter:
        train_values = {**train_overrides, **settings(seed=seed)}
        config = configuration(model, pretrain=pretrain_overrides, augment=augment_overrides, train=train_values)
        images = classification_fingerprint
        if not images and config.pretrain.enabled and classification:
            # As in recurring runs: nobody looks at the images before each of them.
            images = class_fingerprint(classification)
        images = images or dataset_digest
        output = backbone_output(store, config, images, code_digest)
        begin = partial(reporter.write_to, output, shared=True)
        outcome = pretrain.pretrain_backbone(dataset, output, config, classification, begin)
        reporter.publish(outcome.record, metrics, report)
    return outcome.backbone, outcome.record


def train(
    *,
    dataset: str,
    dataset_digest: str,
    backbone: str,
    store: str,
    model: str,
    knobs: Values,
    data_overrides: Values,
    augment_overrides: Values,
    train_overrides: Values,
    launcher: str,
    cluster: Values,
    code_digest: str,
    metrics: MetricsArtifact,
    report: ReportArtifact,
) -> tuple[str, str]:
    """Train the detector, from its newest checkpoint where there is one; return the URIs of bundle and record."""
    from kubeyolo.launch.launcher import training_launcher
    from kubeyolo.steps import train as step

    with reported(step.STEP) as reporter:
        launch = training_launcher(launcher, cluster)
        train_values = {**train_overrides, **settings(**knobs)}
        config = configuration(model, data=data_overrides, augment=augment_overrides, train=train_values)
        output = training_output(store, config, dataset_digest, backbone, code_digest)
        outcome = step.train(dataset, output, config, backbone, partial(reporter.write_to, output, shared=True), launch)
        reporter.publish(outcome.record, metrics, report)
    return outcome.bundle, outcome.record


def evaluate(
    *,
    bundle: str,
    dataset: str,
    store: str,
    run_name: str,
    runtime: str,
    place: str,
    min_ap: float,
    evaluate_overrides: Values,
    metrics: MetricsArtifact,
    confusion: ConfusionArtifact,
    report: ReportArtifact,
) -> tuple[str]:
    """Evaluate a network of a bundle; return the URI of the step's record."""
    from kubeyolo.evaluation.names import check_runtime
    from kubeyolo.steps import evaluate as step

    with reported(step.STEP) as reporter:
        checked = check_runtime(runtime)
        config = bundle_configuration(bundle, evaluate={**evaluate_overrides, **settings(min_ap=min_ap)})
        reporter.write_to(run_output(store, run_name, place))
        outcome = step.evaluate(bundle, dataset, reporter.output, config, checked)
        reporter.publish(outcome.record, metrics, report)
        reporter.publish_confusion(join_uri(reporter.output, step.CONFUSION_NAME), confusion)
    return (outcome.record,)


def export_model(
    *,
    bundle: str,
    dataset: str,
    store: str,
    run_name: str,
    export_overrides: Values,
    evaluate_overrides: Values,
    metrics: MetricsArtifact,
    report: ReportArtifact,
) -> tuple[str, str]:
    """Export the trained network; return the URIs of the bundle with the exported files and of the record."""
    from kubeyolo.steps import export as step

    with reported(step.STEP) as reporter:
        config = bundle_configuration(bundle, export=export_overrides, evaluate=evaluate_overrides)
        reporter.write_to(run_output(store, run_name, step.STEP))
        outcome = step.export_model(bundle, dataset, reporter.output, config)
        reporter.publish(outcome.record, metrics, report)
    return outcome.bundle, outcome.record


def quantize(
    *,
    bundle: str,
    dataset: str,
    store: str,
    run_name: str,
    max_drop: float,
    quantize_overrides: Values,
    evaluate_overrides: Values,
    metrics: MetricsArtifact,
    report: ReportArtifact,
) -> tuple[str, str]:
    """Quantize the exported network; return the URIs of the bundle with the int8 network and of the record."""
    from kubeyolo.steps import quantize as step

    with reported(step.STEP) as reporter:
        values = {**quantize_overrides, **settings(max_drop=max_drop)}
        config = bundle_configuration(bundle, quantize=values, evaluate=evaluate_overrides)
        reporter.write_to(run_output(store, run_name, step.STEP))
        outcome = step.quantize(bundle, dataset, reporter.output, config)
        reporter.publish(outcome.record, metrics, report)
    return outcome.bundle, outcome.record


def publish(
    *, bundle: str, store: str, version: str, evaluation: str, metrics: MetricsArtifact, report: ReportArtifact
) -> tuple[str, str]:
    """Publish the bundle under its version, with a model card; return its URI and that of the record."""
    from kubeyolo.steps import publish as step

    with reported(step.STEP) as reporter:
        outcome = step.publish(bundle, store, version, evaluation)
        reporter.publish(outcome.record, metrics, report)
    return outcome.bundle, outcome.record


def read_pointer(
    *, pointer: str, store: str, model: str, run_id: str, latest: str, force: bool
) -> tuple[str, str, str, str, str]:
    """Return what a retraining is to do: data (or nothing), fingerprint, bundle in use and its pointer, run name."""
    from kubeyolo.steps import pointer as step

    with failing(step.STEP):
        found = step.read_pointer(pointer, store, model, run_id, latest, force)
    return found.data, found.fingerprint, found.in_use, found.latest, found.run_name


def evaluate_in_use(
    *,
    bundle: str,
    dataset: str,
    store: str,
    model: str,
    run_name: str,
    evaluate_overrides: Values,
    metrics: MetricsArtifact,
    report: ReportArtifact,
) -> tuple[str]:
    """Evaluate the model in use, where there is one, as the new model is evaluated; return the URI of the record."""
    from kubeyolo.steps import in_use as step

    with reported(step.STEP) as reporter:
        config = configuration(model, evaluate=evaluate_overrides)
        reporter.write_to(run_output(store, run_name, step.STEP))
        outcome = step.evaluate_in_use(bundle, dataset, reporter.output, config)
        reporter.publish(outcome.record, metrics, report)
    return (outcome.record,)


def promote(
    *,
    bundle: str,
    evaluation: str,
    in_use: str,
    latest: str,
    store: str,
    run_name: str,
    data: str,
    fingerprint: str,
    dataset_digest: str,
    evaluate_overrides: Values,
    max_regression: float,
    metrics: MetricsArtifact,
    report: ReportArtifact,
) -> tuple[str, str]:
    """Publish a bundle that is not worse than the one in use, in its place; return its URI and that of the record."""
    from kubeyolo.steps import promote as step

    with reported(step.STEP) as reporter:
        config = bundle_configuration(bundle, evaluate=evaluate_overrides)
        reporter.write_to(run_output(store, run_name, step.STEP))
        candidate = step.Candidate(
            bundle=bundle, evaluation=evaluation, data=data, fingerprint=fingerprint, dataset_digest=dataset_digest
        )
        outcome = step.promote(candidate, in_use, latest, store, reporter.output, config, max_regression)
        reporter.publish(outcome.record, metrics, report)
    return outcome.bundle, outcome.record


def stop_training(*, launcher: str, cluster: Values) -> None:
    """Delete what training has left on the cluster, whatever happened: the exit handler of a pipeline."""
    from kubeyolo.launch.launcher import stop_launched

    with failing("stop_training"):
        stop_launched(launcher, cluster)


def settings(**values: Any) -> dict[str, Any]:
    """Return the settings that were made: those that are not 0 or empty."""
    return {name: value for name, value in values.items() if value}


def configuration(model: str, **sections: Values) -> Config:
    """Return the configuration of a model, with overrides by section."""
    return load_config(model, overrides={name: dict(values) for name, values in sections.items() if values})


def bundle_configuration(bundle: str, **sections: Values) -> Config:
    """Return the configuration that a bundle was trained with, with overrides by section over that."""
    from kubeyolo.bundle import open_bundle

    manifest = open_bundle(bundle).manifest
    trained = {name: manifest.config.get(name, {}) for name in ("data", "augment", "train")}
    names = {*trained, *sections}
    merged = {name: {**trained.get(name, {}), **(sections.get(name) or {})} for name in names}
    return configuration(manifest.model, **merged)
