"""The steps as components and the command line call them.

If the output has the complete result of the same work, that result is returned. Otherwise the step is called, and its
outcome is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from kubeyolo.bundle import RANGES, Bundle, read_bundle
from kubeyolo.compiled.resources import memory_limits_here
from kubeyolo.config.load import config_digest, ungated
from kubeyolo.config.schema import Config
from kubeyolo.data.class_images import class_fingerprint
from kubeyolo.data.class_subset import of_classes
from kubeyolo.data.dataset import Dataset
from kubeyolo.data.folder import dataset_name
from kubeyolo.data.image_folder import ImageFolder
from kubeyolo.errors import InputError, WorkError
from kubeyolo.evaluation.results import RuntimeName
from kubeyolo.evaluation.results_file import read_file
from kubeyolo.evaluation.sharing import WHOLE, Share
from kubeyolo.index import run_output, write_note
from kubeyolo.launch.launcher import Launcher, LocalLauncher
from kubeyolo.output_streams import Show
from kubeyolo.publishing import sign_bundle
from kubeyolo.signing import check_can_sign
from kubeyolo.source import results_versions, weights_source
from kubeyolo.steps import compare as compare_step
from kubeyolo.steps import configure as configure_step
from kubeyolo.steps import current as current_step
from kubeyolo.steps import evaluate as evaluate_step
from kubeyolo.steps import export as export_step
from kubeyolo.steps import pretrain as pretrain_step
from kubeyolo.steps import promote as promote_step
from kubeyolo.steps import publish as publish_step
from kubeyolo.steps import quantize as quantize_step
from kubeyolo.steps import train as train_step
from kubeyolo.steps import validate as validate_step
from kubeyolo.steps.call import StepCall, nothing
from kubeyolo.steps.checked_form import Form
from kubeyolo.steps.compare import Network
from kubeyolo.steps.conditions import conditions_of, finished_under, settings_conditions
from kubeyolo.steps.configured_run import ConfiguredRun
from kubeyolo.steps.detection import at_exported_size
from kubeyolo.steps.earlier_trainings import Command, name_earlier_trainings, refuse_extension
from kubeyolo.steps.given_dataset import open_given, test_dev_images
from kubeyolo.steps.job import StepSpec
from kubeyolo.steps.judged import store_judged
from kubeyolo.steps.mlflow_run import mlflow_run
from kubeyolo.steps.outcome import StepOutcome, Stopwatch, StoredOutcome, finished, store_outcome
from kubeyolo.steps.outputs import backbone_output, result_output, training_output
from kubeyolo.steps.quantization_training import check_mindspore, check_settings, quantization_config
from kubeyolo.steps.same_training import claimed_unless_finished
from kubeyolo.steps.starting_weights import starting_bundle
from kubeyolo.storage.integrity import sha256_bytes
from kubeyolo.storage.place import Place
from kubeyolo.training.spec import TrainingSpec
from kubeyolo.training.start import weights_digest

HERE = LocalLauncher()
"""Runs every step in this process."""


def configure(
    pipeline: str, form: Form, run_id: str = "", begin: Callable[[Place], None] = nothing
) -> tuple[ConfiguredRun, StoredOutcome]:
    """Configure a run and store its plan; see :func:`kubeyolo.steps.configure.configure`.

    Args:
        pipeline: Name of the pipeline.
        form: Text by field.
        run_id: The id of the run on Kubeflow, under which its name is noted in the store; empty outside Kubeflow.
        begin: Called with the output before anything is changed there.
    """
    watch = Stopwatch()
    limits = memory_limits_here() if run_id else {}
    run = configure_step.configure(pipeline, form, is_remote=bool(run_id), mark_store=True, memory_limits=limits)
    print(*run.lines(), sep="\n", flush=True)
    store = Place.of(run.store)
    output = run_output(store, run.name, configure_step.STEP)
    begin(output)
    if run_id:
        latest = {name: run.facts[name] for name in ("latest",) if name in run.facts}
        write_note(store, run_id, {"name": run.name, "pipeline": pipeline, "index": run.index, **latest})
    return run, store_outcome(configure_step.plan_outcome(run, watch.seconds), output)


def validate_dataset(call: StepCall, data: str, fingerprint: str = "") -> StoredOutcome:
    """Check and store a data set; see :func:`kubeyolo.steps.validate.validate_dataset`.

    Without a fingerprint and without an output the data is always read, and the record is next to the stored data set.
    """
    step = validate_step.STEP

    def work() -> StepOutcome:
        return validate_step.validate_dataset(data, call.store, call.config, fingerprint)

    if call.output is None and not fingerprint:
        outcome = work()
        dataset = outcome.outputs["dataset"]
        assert isinstance(dataset, Dataset)
        return store_outcome(outcome, dataset.place.pinned(""))
    output = call.begun_output(step, dataset_name(data), fingerprint=fingerprint)
    return finished(output, step) or store_outcome(work(), output)


def given_dataset(call: StepCall, text: str, bundle: Bundle | None = None, show: Show = print) -> Dataset:
    """Return the data set that a command is called with; see :mod:`kubeyolo.steps.given_dataset`.

    Args:
        call: The arguments that all steps have in common.
        text: URI or reference of a stored data set, or a folder or URI of images and annotations, which is
            validated and stored; with ``evaluate.test_dev`` also a folder of images without annotations.
        bundle: The bundle that is evaluated.
        show: Shows a line.
    """
    place = call.store.at(text)
    images = test_dev_images(place, call.config, bundle.manifest) if bundle is not None else None

    def validate(data: str, fingerprint: str) -> StoredOutcome:
        return validate_dataset(replace(call, output=None), data, fingerprint)

    return images or open_given(place, call.store, call.config, validate, show)


def pretrain_backbone(
    call: StepCall, dataset: Dataset, launcher: Launcher, fingerprint: str = "", command: Command | None = None
) -> StoredOutcome:
    """Pretrain a backbone; see :func:`kubeyolo.steps.pretrain.pretrain_backbone`.

    Args:
        call: The arguments that all steps have in common.
        dataset: The stored detection data set.
        launcher: Starts the processes.
        fingerprint: Fingerprint that the images of ``pretrain.data`` had when the run started; empty if unknown.
        command: Returns the command line that pretrains with a different output; by default made from the settings.
    """
    images, output = call.config.pretrain.data, call.output
    if output is None:
        digest = fingerprint or (class_fingerprint(call.store.at(images)) if images else dataset.digest)
        output = backbone_output(call.store, call.config, digest, call.code)
    spec = TrainingSpec(task="backbone", dataset=images or dataset.reference, output=output.uri, config=call.config)

    def work(started: TrainingSpec) -> StepOutcome:
        return pretrain_step.pretrain_backbone(started, dataset, output, launcher, fingerprint)

    return _trained(call, pretrain_step.STEP, spec, output, dataset, launcher, command, work)


def train(
    call: StepCall,
    dataset: Dataset,
    launcher: Launcher,
    backbone: str = "",
    command: Command | None = None,
    job: Literal["", "quantize"] = "",
) -> StoredOutcome:
    """Train a detector; see :func:`kubeyolo.steps.train.train`.

    Args:
        call: The arguments that all steps have in common.
        dataset: The stored data set.
        launcher: Starts the processes.
        backbone: URI or reference of the bundle of a pretrained backbone to start from; empty if there is none. It is
            not used if ``train.weights`` names a detector to start from.
        command: Returns the command line that trains with a different output; by default made from the settings.
        job: Name of the step whose job trains, if it is not ``train``.
    """
    named = call.config.train.weights
    weights = starting_bundle(call.store, named, call.config.model) if named else None
    start = call.store.at(backbone) if backbone and weights is None else None
    if start is not None and not start.digest:
        start = read_bundle(start).place
    digest = "" if weights is None else weights_digest(weights.manifest)
    output = call.output or training_output(call.store, call.config, dataset.digest, start, call.code, digest)
    spec = TrainingSpec(
        dataset=dataset.reference,
        output=output.uri,
        config=call.config,
        backbone=start.reference if start is not None else None,
        weights=weights.reference if weights is not None else None,
        job=job,
    )

    def work(started: TrainingSpec) -> StepOutcome:
        return train_step.train(started, dataset, output, launcher)

    return _trained(call, train_step.STEP, spec, output, dataset, launcher, command, work)


def _trained(
    call: StepCall,
    step: str,
    spec: TrainingSpec,
    output: Place,
    dataset: Dataset,
    launcher: Launcher,
    command: Command | None,
    work: Callable[[TrainingSpec], StepOutcome],
) -> StoredOutcome:
    """Return the finished training in an output, or claim the output and train."""
    with claimed_unless_finished(spec, output, step, lambda: call.begin(output), launcher.writer) as claim:
        if isinstance(claim, StoredOutcome):
            with mlflow_run(spec, output) as run:
                if run:
                    run.finish(claim)
            return claim
        if spec.task == "detector" or spec.config.pretrain.enabled:
            check_can_sign()
            refuse_extension(spec, output)
            name_earlier_trainings(spec, output, step, dataset.uri, command)
        started = spec.model_copy(update={"code_digest": weights_source(), "writer": claim.writer})
        with mlflow_run(started, output) as run:
            stored = store_outcome(work(started), output)
            if run:
                run.finish(stored)
        return stored


def evaluate(
    call: StepCall,
    bundle: Bundle,
    dataset: Dataset,
    runtime: RuntimeName = "mindspore",
    launcher: Launcher = HERE,
    share: Share = WHOLE,
) -> StoredOutcome:
    """Evaluate a network of a bundle; see :func:`kubeyolo.steps.evaluate.evaluate`.

    Args:
        call: The arguments that all steps have in common.
        bundle: The bundle.
        dataset: The stored data set.
        runtime: What runs the network.
        launcher: Starts the processes of the step if it has a job.
        share: If several processes share the work, the share of process 0.

    Raises:
        WorkError: AP is below ``evaluate.min_ap``; everything is stored before the error is raised.
    """
    # Limits are not part of a stored result, so they are checked before it is looked for.
    evaluate_step.check_test_dev(dataset, call.config)
    step, model = evaluate_step.STEP, bundle.manifest.model
    output = call.begun_output(step, model, bundle=bundle.digest, dataset=dataset.digest, runtime=runtime)
    conditions = conditions_of(step, bundle, dataset, call.config, runtime=runtime)
    stored = finished_under(output, step, conditions)
    if stored is None and launcher.has_job(step):
        if isinstance(dataset, ImageFolder):
            raise InputError(
                f"{dataset.uri}: a job on a cluster reads stored data sets only; evaluate these images with "
                "--launcher local, or validate a data set whose split has them"
            )
        stored = _by_job(call, step, bundle, dataset, output, conditions, launcher)

    def evaluated() -> StepOutcome:
        return replace(evaluate_step.evaluate(bundle, dataset, call.config, runtime, share), conditions=conditions)

    return store_judged(stored, evaluated, output, call.config.evaluate, share)


def evaluate_file(call: StepCall, file: Path, dataset: Dataset) -> StoredOutcome:
    """Evaluate the detections of any program; see :func:`kubeyolo.steps.evaluate.evaluate_file`.

    Args:
        call: The arguments that all steps have in common.
        file: A COCO results file.
        dataset: The stored data set.

    Raises:
        WorkError: AP is below ``evaluate.min_ap``; everything is stored before the error is raised.
    """
    step, content = evaluate_step.STEP, read_file(file)
    digests = {"detections": sha256_bytes(content), "dataset": dataset.digest}
    output = call.begun_output(step, dataset_name(file.stem), **digests)
    conditions = settings_conditions(step, call.config, digests)

    def evaluated() -> StepOutcome:
        outcome = evaluate_step.evaluate_file(content, file.name, dataset, call.config)
        return replace(outcome, conditions=conditions)

    stored = finished_under(output, step, conditions)
    return store_judged(stored, evaluated, output, call.config.evaluate)


def compare(
    call: StepCall, networks: tuple[Network, Network], dataset: Dataset, launcher: Launcher = HERE
) -> StoredOutcome:
    """Compare two networks on the same images; see :func:`kubeyolo.steps.compare.compare`.

    Each network is evaluated as by :func:`evaluate`, without gates: a stored evaluation is used again.

    Args:
        call: The arguments that all steps have in common; each network has a configuration of its own.
        networks: The networks.
        dataset: The stored data set.
        launcher: Starts the processes of the evaluations if they have jobs.

    Raises:
        InputError: The networks would be evaluated on different splits.
    """
    compare_step.check_comparable(networks)
    step, conditions = compare_step.STEP, {}
    for name, each in zip(("first", "second"), networks, strict=True):
        settings = conditions_of(evaluate_step.STEP, each.bundle, dataset, each.config, runtime=each.runtime)
        conditions[name] = config_digest(settings)
    model = networks[1].bundle.manifest.model
    output = call.output or result_output(call.store, step, model, conditions, {}, call.code)
    call.begin(output)
    stored = finished_under(output, step, conditions)
    if stored is not None:
        return stored
    evaluated = []
    for each in networks:
        own = replace(call, config=ungated(each.config), output=None, begin=nothing)
        evaluated.append(evaluate(own, each.bundle, dataset, each.runtime, launcher))
    data = of_classes(dataset, networks[1].config.evaluate.classes)
    outcome = compare_step.compare((networks[0].bundle, networks[1].bundle), data, tuple(evaluated))
    return store_outcome(replace(outcome, conditions=conditions), output)


def _by_job(
    call: StepCall,
    step: str,
    bundle: Bundle,
    dataset: Dataset,
    output: Place,
    conditions: dict[str, Any],
    launcher: Launcher,
) -> StoredOutcome:
    """Run a step in a job, and return the result that the job has stored; gates are left to the caller."""
    digest = config_digest({**conditions, "code": call.code, "packages": results_versions()})
    spec = StepSpec(
        step=step,
        store=call.store.uri,
        output=output.uri,
        config=ungated(call.config),
        code=call.code,
        bundle=bundle.reference,
        dataset=dataset.reference,
        runtime=conditions.get("runtime", "mindspore"),
        digest=digest,
    )
    launcher.launch(spec.work(launcher.processes(step)))
    stored = finished_under(output, step, conditions)
    if stored is None:
        raise WorkError(f"{output}: the job of {step} is complete, but its result is not; run the same command again")
    return stored


def export_model(call: StepCall, bundle: Bundle, dataset: Dataset, launcher: Launcher = HERE) -> StoredOutcome:
    """Export a trained network; see :func:`kubeyolo.steps.export.export_model`."""
    export_step.check_export(call.config)
    export_step.exported_manifest(bundle, call.config)
    return _derived(call, export_step.STEP, export_step.export_model, bundle, dataset, launcher)


def quantize(call: StepCall, bundle: Bundle, dataset: Dataset, launcher: Launcher = HERE) -> StoredOutcome:
    """Quantize an exported network; see :func:`kubeyolo.steps.quantize.quantize`.

    With ``quantize.method = qat`` the network is trained first, unless the bundle comes from a quantization-aware
    training. This training is stored like any other, so it continues after an interruption.

    Args:
        call: The arguments that all steps have in common.
        bundle: A bundle with an ONNX network.
        dataset: The stored data set.
        launcher: Starts the processes of the training.
    """
    config = None
    if call.config.quantize.method == "qat":
        check_settings(call.config.quantize)
        if RANGES not in bundle.manifest.files:
            config = quantization_config(bundle, call.config)

    def quantized(opened: Bundle, data: Dataset, output: Place, settings: Config) -> StepOutcome:
        if settings.quantize.method == "ptq":
            return quantize_step.quantize(opened, data, output, settings)
        trained = opened
        if config is not None:
            check_mindspore(launcher)
            training = replace(call, config=config, code=weights_source(), output=None, begin=nothing)
            trained = call.bundle(train(training, data, launcher, job="quantize").record.outputs["bundle"])
        return quantize_step.quantize(opened, data, output, settings, trained)

    return _derived(call, quantize_step.STEP, quantized, bundle, dataset)


def _derived(
    call: StepCall,
    step: str,
    work: Callable[[Bundle, Dataset, Place, Config], StepOutcome],
    bundle: Bundle,
    dataset: Dataset,
    launcher: Launcher = HERE,
) -> StoredOutcome:
    output = call.begun_output(step, bundle.manifest.model, bundle=bundle.digest, dataset=dataset.digest)
    conditions = conditions_of(step, bundle, dataset, call.config)
    found = finished_under(output, step, conditions)
    if found is None:
        check_can_sign()
    if found is None and launcher.has_job(step):
        stored = _by_job(call, step, bundle, dataset, output, conditions, launcher)
        # The processes of a job have no signing key.
        sign_bundle(stored.place.at(stored.record.outputs["bundle"]))
        return stored
    return found or store_outcome(replace(work(bundle, dataset, output, call.config), conditions=conditions), output)


def publish(call: StepCall, bundle: Bundle, version: str = "", evaluation: str = "") -> StoredOutcome:
    """Publish a bundle under its version; see :func:`kubeyolo.steps.publish.publish`.

    Args:
        call: The arguments that all steps have in common.
        bundle: The bundle.
        version: Version to publish under; if empty, it is derived from the content.
        evaluation: URI or reference of the record of the trained network's evaluation; empty if there is none.
    """
    check_can_sign()
    record = call.store.at(evaluation) if evaluation else None
    outcome = publish_step.publish(bundle, call.store, version, record)
    return store_outcome(outcome, publish_step.publish_output(call.store, bundle, version, record))


def evaluate_current(call: StepCall, bundle: Bundle | None, dataset: Dataset) -> StoredOutcome:
    """Evaluate the current model; see :func:`kubeyolo.steps.current.evaluate_current`.

    Args:
        call: The arguments that all steps have in common.
        bundle: The current bundle; None if there is no current model.
        dataset: The stored data set.
    """
    step = current_step.STEP
    digests = {"bundle": bundle.digest if bundle else "", "dataset": dataset.digest, "runtime": "onnx"}
    output = call.begun_output(step, call.config.model, evaluate_step.STEP, **digests)
    # The current model is evaluated without the gate of this run, at the size of its exported files.
    config = at_exported_size(ungated(call.config))
    without_gate = replace(call, config=config, output=None, begin=nothing)

    def measured(runtime: RuntimeName) -> StoredOutcome:
        assert bundle is not None
        return evaluate(without_gate, bundle, dataset, runtime)

    return store_outcome(current_step.evaluate_current(bundle, dataset, measured), output)


def promote(
    call: StepCall,
    bundle: Bundle,
    evaluation: str,
    current: str,
    latest: str,
    dataset: str,
    data: str,
    fingerprint: str,
) -> StoredOutcome:
    """Publish a bundle and make it current; see :func:`kubeyolo.steps.promote.promote`.

    Args:
        call: The arguments that all steps have in common.
        bundle: The bundle.
        evaluation: URI or reference of the record of the trained network's evaluation.
        current: URI or reference of the record of the evaluation of the current model.
        latest: URI of the pointer to the current model.
        dataset: Reference of the stored data set.
        data: URI of the original data set, before it was checked and stored.
        fingerprint: Fingerprint of the data at this URI.
    """
    check_can_sign()
    step, digest = promote_step.STEP, call.store.at(dataset).digest
    output = call.begun_output(step, call.config.model, bundle=bundle.digest, dataset=digest)
    outcome = promote_step.promote(
        promote_step.Candidate(bundle=bundle, data=data, fingerprint=fingerprint, dataset_digest=digest),
        call.store.at(current),
        call.store.at(latest),
        call.store,
        call.config,
        lambda: publish(call, bundle, "", evaluation),
    )
    return store_outcome(outcome, output)
