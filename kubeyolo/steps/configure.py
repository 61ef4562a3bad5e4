"""configure: from a filled-in form to one checked configuration, a name, and the settings of every later step.

Forms from Kubeflow's pages, schedules, plain POST requests and the command line are all configured here, so that the
same settings get the same checks, the same name and the same cache keys.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from kubeyolo.bundle import MANIFEST_NAME, Bundle, BundleManifest, read_bundle
from kubeyolo.catalogue import DETECTOR_RETRAINING, DETECTOR_TRAINING, MODEL_EVALUATION, STEPS, steps_of
from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.config.form import resolve_form
from kubeyolo.config.idle_settings import idle_settings, idle_size
from kubeyolo.config.load import ResolvedConfig, allowed_values, ungated
from kubeyolo.config.schema import Config
from kubeyolo.data.class_images import class_fingerprint
from kubeyolo.data.digest import SourceFacts, source_facts
from kubeyolo.data.findings import check_actions
from kubeyolo.data.layouts.types import REQUIRED_SPLITS
from kubeyolo.errors import InputError, suggest
from kubeyolo.evaluation.network_files import check_network
from kubeyolo.index import RESULT, STORE, run_output, store_id
from kubeyolo.models.anchors import other_anchors
from kubeyolo.pointers import (
    latest_model,
    no_current_model,
    pointed_bundle,
    read_data_pointer,
    read_model_pointer,
)
from kubeyolo.report.configuration import configuration_report
from kubeyolo.source import results_source, weights_source
from kubeyolo.steps.checked_form import CheckedForm, Form, check_form, checked_place
from kubeyolo.steps.configured_run import ConfiguredRun
from kubeyolo.steps.detection import check_size, check_trained
from kubeyolo.steps.given_bundle import given_bundle
from kubeyolo.steps.naming import run_name
from kubeyolo.steps.outcome import StepOutcome
from kubeyolo.steps.plan_estimate import estimate_training, small_set_notes
from kubeyolo.steps.publish import published_place
from kubeyolo.steps.settings import StepSettings, read_sections
from kubeyolo.steps.start import retraining_start
from kubeyolo.steps.starting_weights import resolve_start
from kubeyolo.storage.place import Place

STEP = "configure"
_WEIGHTS_STEPS = frozenset({"pretrain_backbone", "train"})
_BY_FINGERPRINT = {"pretrain": {"data"}, "train": {"anchors", "weights"}}
"""Settings that are URIs, or have several spellings: the name of a run depends on their content instead."""
_ADDED: Mapping[str, Any] = {
    "recipe": "",
    "train.freeze": [],
    "train.bind_core": False,
    "train.recompute": False,
    "train.fake_quantize": False,
    "retrain.start_from": "",
    "quantize.runtime": "onnxruntime",
    "quantize.judge": "interval",
    "quantize.float_layers": ["auto"],
    "quantize.on_miss": "",
    "quantize.method": "ptq",
    "quantize.max_epoch": 10,
    "quantize.calibration_epochs": 1.0,
    "quantize.lr": 0.0,
    "quantize.device_target": "CPU",
    "quantize.processes": 1,
    "export.opset": 17,
    "export.image_size": 0,
    "export.nms": False,
    "export.parity_ap": True,
    "evaluate.nms": "greedy",
    "evaluate.rect": False,
    "evaluate.tta": False,
    "evaluate.engine": "hotcoco",
    "evaluate.classes": [],
    "evaluate.dets_per_class": 0,
    "evaluate.test_dev": False,
}
"""Keys that were added later, with their defaults."""


def configure(
    pipeline: str,
    form: Form,
    is_remote: bool = False,
    mark_store: bool = False,
    memory_limits: Mapping[str, str] = MappingProxyType({}),
) -> ConfiguredRun:
    """Resolve and check everything that can be checked before a run starts, and name the run.

    Args:
        pipeline: Name of the pipeline.
        form: Text by field; an empty field is ignored.
        is_remote: Whether the steps run in pods, which cannot read folders of this machine.
        mark_store: Whether to give the store an id if it has none; nothing else is written.
        memory_limits: Memory that the pods of steps may use, by step, such as ``{"train": "16Gi"}``.

    Raises:
        InputError: A setting, a name, a URI or the content of a URI is wrong, or a step takes more memory than its pod
            may use.
        WorkError: The store stopped answering.
    """
    checked = replace(check_form(pipeline, form, is_remote), memory_limits=memory_limits)
    if not checked.store:
        raise InputError(
            "no store: fill in the field store, such as minio://bucket/prefix, or set "
            f"{STORE} (on a cluster: in the ConfigMap kubeyolo-store)"
        )
    store = checked.at(checked.store)
    store.contact()
    check_store_apart(checked.store, checked.place("data"))
    run = _CONFIGURE[pipeline](checked)
    mark = store_id(store, create=mark_store)
    settings = {task: given.model_copy(update={"store_id": mark}) for task, given in run.settings.items()}
    return replace(run, settings=settings)


def plan_outcome(run: ConfiguredRun, seconds: float) -> StepOutcome:
    """Return the outcome of configuring a run: its plan."""
    view = run.view()
    metrics: dict[str, Any] = {"name": run.name, "changed": len(view.changed)}
    metrics |= {"estimate": run.estimate.span} if run.estimate and run.has_work else {}
    html = configuration_report(view)
    return StepOutcome(step=STEP, seconds=seconds, outputs={"data": run.data}, metrics=metrics, html=html)


def check_store_apart(store: str, data: str) -> None:
    """Refuse a store inside the folder of images: the files of the store would become part of the data."""
    for folder in ("train", "val", "valid", "test", "images"):
        if data and (store == f"{data}/{folder}" or store.startswith(f"{data}/{folder}/")):
            raise InputError(
                f"store {store} is in the folder of the images of {data}; choose a folder next to the data"
            )


def _configure_training(checked: CheckedForm) -> ConfiguredRun:
    data = checked.place("data")
    source, notes = look_at_data(data, checked.resolved.config)
    return _trained_run(DETECTOR_TRAINING, checked, data, source, notes + _version_notes(checked))


def _configure_retraining(checked: CheckedForm) -> ConfiguredRun:
    pointer, config = checked.place("pointer"), checked.resolved.config
    try:
        data = checked_place(
            f"the data that {pointer} names", read_data_pointer(checked.at(pointer)), checked.is_remote
        )
        source, notes = look_at_data(data, config)
    except InputError as error:
        raise InputError(f"{pointer} points at a data set that cannot be used: {error}") from error
    latest = _latest(checked)
    current = read_model_pointer(latest)
    if current is not None:
        checked_place(f"the bundle that {latest} names", current.bundle, checked.is_remote)
    if current is not None and not (latest.at(current.bundle) / MANIFEST_NAME).exists():
        raise InputError(
            f"{latest} points at {current.bundle}, which is not a bundle; correct the pointer, or remove it to start "
            "without a current model"
        )
    bundle = read_bundle(latest.at(current.bundle)) if current else None
    is_unchanged = current is not None and current.fingerprint == source.fingerprint and not config.retrain.force
    if bundle is None:
        notes += (no_current_model(latest),)
    elif is_unchanged:
        notes += (
            f"unchanged: the current model was trained on this data; the current model stays {bundle.uri} "
            "(retrain.force=true trains anyway)",
        )
    else:
        notes += (f"to train: the current model is {bundle.uri}",)
    start = retraining_start(checked.resolved, bundle, latest)
    checked, notes = replace(checked, resolved=start.resolved), notes + start.notes
    pointers = {"current": bundle.reference if bundle else "", "latest": latest.uri}
    run = _trained_run(DETECTOR_RETRAINING, checked, data, source, notes, pointers, has_work=not is_unchanged)
    return replace(run, facts={"pointer": pointer, **run.facts, **pointers})


def _configure_evaluation(checked: CheckedForm) -> ConfiguredRun:
    data, store = checked.place("data"), checked.store
    runtime = checked.runtime
    bundles, resolved = evaluated_bundles(checked)
    references = {name: bundles[name].reference if name in bundles else "" for name in ("bundle", "baseline")}
    config = resolved["bundle"].config
    source, notes = look_at_data(data, config, trains=False)
    # Only metrics are compared: the gate that a bundle was trained with is ignored.
    sections = {which: read_sections(ungated(each.config), "evaluate") for which, each in resolved.items()}
    identity = {
        **references,
        **_without_added(sections["bundle"]),
        "runtime": runtime,
        "fingerprint": source.fingerprint,
    }
    label = f"evaluation-{bundles['bundle'].place.name}"[:40]
    name = run_name(label, data, identity)
    settings = {"validate_dataset": _validation(store, data, source, config)}
    for which, task in (("bundle", "evaluate"), ("baseline", "evaluate_baseline")):
        if which not in bundles:
            # The task does not run, but its input must be a struct.
            settings[task] = StepSettings(store=store, code=results_source())
            continue
        settings[task] = StepSettings(
            model=bundles[which].manifest.model,
            store=store,
            code=results_source(),
            config=sections[which],
            runtime=runtime,
            **_launch(checked),
            index=run_output(checked.at(store), name, f"{task}.json").uri,
        )
    facts = {"bundle": references["bundle"], "baseline": references["baseline"], "runtime": runtime}
    return ConfiguredRun(
        pipeline=MODEL_EVALUATION,
        name=name,
        store=store,
        resolved=resolved["bundle"],
        settings=settings,
        facts={"data": data, "fingerprint": source.fingerprint, **facts},
        images=source.images,
        notes=notes + checked.launcher.placement(config, ["evaluate"]),
        bundle=bundles["bundle"],
        baseline=bundles.get("baseline"),
        data=data,
    )


def evaluated_bundles(checked: CheckedForm) -> tuple[dict[str, Bundle], dict[str, ResolvedConfig]]:
    """Return the bundles of an evaluation, and the configuration of each, by the fields ``bundle`` and ``baseline``.

    Raises:
        InputError: There is no bundle, it has no network for the runtime, or a setting does not fit the launcher.
    """
    bundles = {name: bundle for name in ("bundle", "baseline") if (bundle := _bundle_of(checked, name)) is not None}
    for bundle in bundles.values():
        check_network(bundle, checked.runtime)
    resolved = {
        name: checked.launcher.placed(bundle_config(bundle.manifest, checked.form)) for name, bundle in bundles.items()
    }
    for name, each in resolved.items():
        check_size(bundles[name].manifest, each.config, checked.runtime)
        checked.launcher.check(each.config, ["evaluate"], checked.is_remote)
    return bundles, resolved


_CONFIGURE: Mapping[str, Callable[[CheckedForm], ConfiguredRun]] = {
    DETECTOR_TRAINING: _configure_training,
    DETECTOR_RETRAINING: _configure_retraining,
    MODEL_EVALUATION: _configure_evaluation,
}


def bundle_config(manifest: BundleManifest, form: Form) -> ResolvedConfig:
    """Return the configuration that a bundle was trained with, overridden by the values of a form.

    Keys and values of the bundle that this version does not know are left out and named on standard error.

    Raises:
        InputError: A setting is unknown or not allowed.
    """
    kept, gone = allowed_values({name: manifest.config.get(name, {}) for name in ("data", "augment", "train")})
    if gone:
        print(f"left out of the bundle's configuration: {', '.join(gone)}", file=sys.stderr, flush=True)
    return resolve_form(form, manifest.model, kept)


def _bundle_of(checked: CheckedForm, field_name: str) -> Bundle | None:
    """Return the bundle that a field names, directly or by a pointer; None if the field is empty."""
    text = checked.place(field_name)
    if not text:
        return None
    place = pointed_bundle(checked.at(text))
    checked_place(f"the bundle that {text} names", place.uri, checked.is_remote)
    return given_bundle(place)


def _latest(checked: CheckedForm) -> Place:
    """Return the pointer to the current model."""
    config = checked.resolved.config
    named = config.retrain.latest
    return checked.at(named) if named else latest_model(checked.at(checked.store), config.model)


def _trained_run(
    pipeline: str,
    checked: CheckedForm,
    data: str,
    source: SourceFacts,
    notes: tuple[str, ...],
    pointers: Mapping[str, str] = MappingProxyType({}),
    has_work: bool = True,
) -> ConfiguredRun:
    """Return the run of a training or a retraining.

    Args:
        pipeline: Name of the pipeline.
        checked: The checked form.
        data: URI of the data set.
        source: Images and fingerprint of the data set.
        notes: Notes collected so far.
        pointers: For a retraining: the current bundle, and the pointer to it.
        has_work: Whether anything must be trained.
    """
    check_trained(checked.resolved.config)
    start = resolve_start(checked.resolved, checked.at(checked.store), checked.is_remote)
    checked = replace(checked, resolved=start.resolved)
    config, store, version = checked.resolved.config, checked.store, checked.form.get("version", "")
    pretrain = config.pretrain
    images_fingerprint = class_fingerprint(checked.at(pretrain.data)) if pretrain.data and pretrain.enabled else ""
    identity = {
        "pipeline": pipeline,
        "config": _named_values(config),
        "fingerprint": source.fingerprint,
        "images": images_fingerprint,
        "version": version,
    }
    identity |= {"weights": start.digest} if start.digest else {}
    name = run_name(config.model, data, identity)
    index = run_output(checked.at(store), name, RESULT).uri
    own: dict[str, dict[str, Any]] = {
        "pretrain_backbone": {"fingerprint": images_fingerprint},
        "publish": {"version": version, "index": index},
        "evaluate_current": {"current": pointers.get("current", "")},
        "promote": {"index": index, "data": data, "fingerprint": source.fingerprint, **pointers},
    }
    settings = {"validate_dataset": _validation(store, data, source, config)}
    working_on = replace(checked, resolved=_with_on_miss(checked.resolved, pipeline))
    settings |= {step: _step_settings(working_on, step, own.get(step, {})) for step in _steps(pipeline)}
    facts = {"data": data, "fingerprint": source.fingerprint, "launcher": checked.launcher.name, "version": version}
    facts |= {"weights": config.train.weights}
    estimate, remarks = estimate_training(checked, source, has_work)
    is_retraining = pipeline == DETECTOR_RETRAINING
    working = [step for step in _steps(pipeline) if step != "pretrain_backbone" or pretrain.enabled]
    remarks += checked.launcher.placement(config, working)
    remarks += small_set_notes(data, source, config) if has_work else ()
    return ConfiguredRun(
        pipeline=pipeline,
        name=name,
        store=store,
        resolved=checked.resolved,
        settings=settings,
        facts=facts,
        images=source.images,
        estimate=estimate,
        notes=notes + start.notes + idle_settings(start.resolved, is_retraining) + idle_size(start.resolved) + remarks,
        has_work=has_work,
        data=data,
    )


def _with_on_miss(resolved: ResolvedConfig, pipeline: str) -> ResolvedConfig:
    """Return a configuration in which an empty ``quantize.on_miss`` has the value of a pipeline.

    The network of a retraining replaces one with an int8 file, so it needs its own.
    """
    config = resolved.config
    if config.quantize.on_miss or pipeline != DETECTOR_TRAINING:
        return resolved
    section = config.quantize.model_copy(update={"on_miss": "leave_out"})
    return replace(resolved, config=config.model_copy(update={"quantize": section}))


def _step_settings(checked: CheckedForm, step: str, own: Mapping[str, Any]) -> StepSettings:
    """Return the settings of a step after the validation of the data; ``own`` are the settings that it alone has."""
    config = checked.resolved.config
    return StepSettings(
        model=config.model,
        store=checked.store,
        code=weights_source() if step in _WEIGHTS_STEPS else results_source(),
        config=read_sections(config, step),
        **(_launch(checked) if STEPS[step].has_job else {}),
        **own,
    )


def _launch(checked: CheckedForm) -> dict[str, Any]:
    """Return the settings of a step that may have a job."""
    return {"launcher": checked.launcher.name, "cluster": dict(checked.cluster)}


def _named_values(config: Config) -> dict[str, Any]:
    """Return the values of a configuration that the name of a run depends on.

    Anchors are included as numbers, so that their spelling does not matter. The model's own anchors, the device CPU and
    the defaults of keys that were added later are left out, so that a run with them keeps the name that it had before
    their keys existed.
    """
    values = _without_added(config.model_dump(mode="json", exclude=_BY_FINGERPRINT))
    for section in ("pretrain", "evaluate", "export"):
        if values[section]["device_target"] == "CPU":
            del values[section]["device_target"]
    anchors = other_anchors(config)
    if anchors is not None:
        values["train"]["anchors"] = anchors
    return values


def _without_added(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a configuration without keys that were added later and have their defaults."""
    kept = {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}
    for key, default in _ADDED.items():
        section, _, name = key.rpartition(".")
        owner = kept.get(section, {}) if section else kept
        if name in owner and owner[name] == default:
            del owner[name]
    return kept


def _steps(pipeline: str) -> tuple[str, ...]:
    """Return the steps of a pipeline that receive sections of the configuration, in the order of the catalogue."""
    steps = steps_of(CompiledPipeline.named(pipeline).tasks)
    return tuple(step.name for step in steps if step.name not in (STEP, "validate_dataset"))


def _validation(store: str, data: str, source: SourceFacts, config: Config) -> StepSettings:
    return StepSettings(
        model=config.model,
        store=store,
        code=results_source(),
        data=data,
        fingerprint=source.fingerprint,
        config=read_sections(config, "validate_dataset"),
    )


def look_at_data(data: str, config: Config, trains: bool = True) -> tuple[SourceFacts, tuple[str, ...]]:
    """Return images and fingerprint of a data set, and a note on how they were read.

    Args:
        data: URI of the data set.
        config: The configuration.
        trains: Whether a detector will be trained on the data.
    """
    check_actions(config.data.findings)
    start = time.monotonic()
    source = source_facts(data, config.data)
    seconds = time.monotonic() - start
    validates = trains and config.train.val_interval != 0
    for key in ("evaluate.split", "train.val_split") if validates else ("evaluate.split",):
        split = config.value(key)
        if split not in source.images and split not in REQUIRED_SPLITS:
            raise InputError(f"{key}: {data} has no split {split!r}{suggest(split, source.images)}")
    how = "listed with sizes and checksums" if source.is_listed else "read"
    return source, (f"the data was {how}, in {seconds:.1f} s: fingerprint {source.fingerprint[:12]}",)


def _version_notes(checked: CheckedForm) -> tuple[str, ...]:
    """Return a note if the version in the form is published already."""
    version = checked.form.get("version", "")
    if not version:
        return ()
    place = published_place(checked.at(checked.store), checked.resolved.config.model, version)
    if not (place / MANIFEST_NAME).exists():
        return ()
    return (f"version {version} is at {place} already; this run fails at its end if its networks differ",)
