"""configure: from a filled-in form to one checked configuration, a name, and the settings of every later step.

The form of Kubeflow's pages, schedules, retraining, a plain POST and the command line all come through here: the same
settings give the same checks, the same name and the same cache keys, whoever gives them.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kubeyolo.bundle import (
    MANIFEST_NAME,
    MINDIR,
    ONNX,
    ONNX_INT8,
    WEIGHTS,
    BundleManifest,
    bundle_reference,
    open_manifest,
)
from kubeyolo.catalogue import DETECTOR_RETRAINING, DETECTOR_TRAINING, MODEL_EVALUATION, steps_of
from kubeyolo.compiled.read import pipeline_text, task_names
from kubeyolo.config.form import resolve_form
from kubeyolo.config.load import ResolvedConfig, allowed_values, resolve_layers
from kubeyolo.config.schema import Config
from kubeyolo.data.digest import SourceFacts, source_facts
from kubeyolo.data.findings import check_actions
from kubeyolo.data.layout import REQUIRED_SPLITS
from kubeyolo.errors import InputError, suggest
from kubeyolo.estimate import RunEstimate, estimate_run, size_words
from kubeyolo.evaluation.names import RuntimeName
from kubeyolo.index import RESULT, RUN_ID, STORE, run_output, store_id
from kubeyolo.launch.launcher import VOLCANO, checked_settings
from kubeyolo.memory import usable_memory
from kubeyolo.models.anchors import other_anchors
from kubeyolo.models.registry import model_facts
from kubeyolo.pointers import (
    latest_model,
    no_current_model,
    pointed_bundle,
    read_data_pointer,
    read_model_pointer,
)
from kubeyolo.processors import usable_processors
from kubeyolo.report.configuration import PlanView, SettingRow
from kubeyolo.source import results_source, weights_source
from kubeyolo.steps.checked_form import CheckedForm, Form, check_form, checked_place
from kubeyolo.steps.naming import run_name
from kubeyolo.steps.settings import StepSettings, read_sections
from kubeyolo.storage.file_errors import available_bytes, megabytes
from kubeyolo.storage.reference import split_reference
from kubeyolo.storage.uri import join_uri, open_store, split_uri
from kubeyolo.training.class_images import class_fingerprint

STEP = "configure"
_WEIGHTS_STEPS = frozenset({"pretrain_backbone", "train"})
_BY_FINGERPRINT = {"pretrain": {"data"}}
"""Settings that say where something lies: a run is named after what lies there."""


@dataclass(frozen=True, kw_only=True)
class ConfiguredRun:
    """A run whose every setting is known and checked.

    Attributes:
        pipeline: Name of the pipeline.
        name: Name of the run: the same for the same settings and the same data.
        store: URI of its store.
        resolved: The configuration, with the origin of each value.
        settings: What each later step is handed, by the name of its task.
        facts: What it is about, in words: data, fingerprint, bundle and the like.
        images: Images by split, where the data was looked at.
        estimate: What it will take; None where nothing is trained.
        notes: Remarks for the person who starts the run.
        has_work: Whether there is something to do; a retraining on unchanged data has nothing.
        bundle: Of an evaluation: reference of the bundle.
        baseline: Of an evaluation: reference of the bundle it is compared with, or empty.
        data: URI of the data set.
    """

    pipeline: str
    name: str
    store: str
    resolved: ResolvedConfig
    settings: Mapping[str, StepSettings]
    facts: Mapping[str, str]
    images: Mapping[str, int] = field(default_factory=dict)
    estimate: RunEstimate | None = None
    notes: tuple[str, ...] = ()
    has_work: bool = True
    bundle: str = ""
    baseline: str = ""
    data: str = ""

    @property
    def config(self) -> Config:
        """The configuration."""
        return self.resolved.config

    @property
    def index(self) -> str:
        """URI of the index of its results."""
        if self.pipeline == MODEL_EVALUATION:
            return self.settings["evaluate"].index
        return run_output(self.store, self.name, RESULT)

    def view(self) -> PlanView:
        """Return what the plan of the run says."""
        preset = _flat(resolve_layers(self.config.model, []).config)
        rows = [
            SettingRow(key, value, preset[key], self.resolved.origins.get(key, "the schema's default"))
            for key, value in _flat(self.config).items()
        ]
        facts = {"pipeline": self.pipeline, "model": self.config.model, **self.facts, "store": self.store}
        return PlanView(
            name=self.name,
            lead=self.lead,
            facts=facts,
            images=self.images,
            settings=rows,
            estimate=self.estimate.words() if self.estimate and self.has_work else (),
            notes=self.notes,
        )

    @property
    def lead(self) -> str:
        """What the run does, in a sentence."""
        if self.pipeline == MODEL_EVALUATION:
            against = f" and {split_reference(self.baseline)[0]}" if self.baseline else ""
            return f"{split_reference(self.bundle)[0]}{against} evaluated on {self.data}."
        if not self.has_work:
            return f"Nothing to train: {self.data} has not changed."
        train = self.config.train
        return (
            f"{self.config.model} is trained on {self.data}: {train.max_epoch} epochs at {train.image_size} px, "
            f"{train.processes} x {train.per_batch_size} images a step."
        )

    def lines(self) -> list[str]:
        """Return the plan in a few lines, for a log."""
        view = self.view()
        changed = [f"{row.key} = {row.value} ({row.origin})" for row in view.changed]
        return [f"run {self.name}", view.lead, *view.estimate, *view.notes, *changed]

    def struct(self) -> dict[str, str]:
        """Return what is known of the run as a struct of a pipeline: texts, none of them empty."""
        values = {"name": self.name, "model": self.config.model, "store": self.store, **self.facts}
        return {key: value for key, value in values.items() if value}


def configure(pipeline: str, form: Form, is_remote: bool = False, mark_store: bool = False) -> ConfiguredRun:
    """Resolve and check everything that can be known before a run works, and name the run.

    Args:
        pipeline: Name of the pipeline.
        form: Text by field; an empty field is one that says nothing.
        is_remote: Whether the steps run in pods, which see no folder of this machine.
        mark_store: Whether to give the store an id where it has none; nothing else is written.

    Raises:
        InputError: Something is wrong with a setting, a name, a place, or with what lies there.
        WorkError: The store stopped answering.
    """
    checked = check_form(pipeline, form, is_remote)
    if not checked.store:
        raise InputError(
            "no store: fill in the field store, such as minio://bucket/prefix, or set "
            f"{STORE} (on a cluster: in the ConfigMap kubeyolo-store)"
        )
    open_store(checked.store)
    _check_store_apart(checked.store, checked.place("data"))
    run = _CONFIGURE[pipeline](checked)
    mark = store_id(checked.store, create=mark_store)
    settings = {task: given.model_copy(update={"store_id": mark}) for task, given in run.settings.items()}
    return replace(run, settings=settings)


def _check_store_apart(store: str, data: str) -> None:
    """Refuse a store among the images: what it stores would be part of the data."""
    for folder in ("train", "val"):
        if data and (store == f"{data}/{folder}" or store.startswith(f"{data}/{folder}/")):
            raise InputError(f"store {store} lies among the images of {data}; choose a folder next to the data")


def _configure_training(checked: CheckedForm) -> ConfiguredRun:
    data = checked.place("data")
    source, notes = _look(data, checked.resolved.config)
    version = checked.form.get("version", "")
    if version:
        notes += _version_notes(checked, version)
    more = {"version": version} if version else {}
    return _trained_run(DETECTOR_TRAINING, checked, data, source, notes, more)


def _configure_retraining(checked: CheckedForm) -> ConfiguredRun:
    pointer, config = checked.place("pointer"), checked.resolved.config
    try:
        data = checked_place(f"the data that {pointer} names", read_data_pointer(pointer), checked.is_remote)
        source, notes = _look(data, config)
    except InputError as error:
        raise InputError(f"{pointer} points at a data set that cannot be used: {error}") from error
    latest = config.retrain.latest or latest_model(checked.store, config.model)
    current = read_model_pointer(latest)
    if current is not None and not open_store(current.bundle).exists(MANIFEST_NAME):
        raise InputError(
            f"{latest} points at {current.bundle}, where there is no bundle; correct it, or remove it to start anew"
        )
    reference = bundle_reference(current.bundle) if current else ""
    is_unchanged = current is not None and current.fingerprint == source.fingerprint and not config.retrain.force
    if is_unchanged:
        notes += (
            f"unchanged: the current model was trained on this data; current stays {split_reference(reference)[0]} "
            "(retrain.force=true trains all the same)",
        )
    else:
        notes += (f"to train: current is {split_reference(reference)[0]}" if reference else no_current_model(latest),)
    more = {"current": reference, "latest": latest}
    run = _trained_run(DETECTOR_RETRAINING, checked, data, source, notes, more)
    facts = {"pointer": pointer, **run.facts, "current": reference, "latest": latest}
    return replace(run, facts=facts, has_work=not is_unchanged)


def _configure_evaluation(checked: CheckedForm) -> ConfiguredRun:
    data, store = checked.place("data"), checked.store
    runtime = checked.runtime
    places = {name: _bundle_of(checked, name) for name in ("bundle", "baseline")}
    references = {name: bundle_reference(place) if place else "" for name, place in places.items()}
    manifests = {name: open_manifest(reference) for name, reference in references.items() if reference}
    for name, manifest in manifests.items():
        _check_network(references[name], manifest, runtime)
    resolved = {name: bundle_config(manifest, checked.form) for name, manifest in manifests.items()}
    config = resolved["bundle"].config
    source, notes = _look(data, config)
    # Compared are the numbers: a gate that a bundle was trained with does not count here.
    sections = {which: read_sections(_ungated(each.config), "evaluate") for which, each in resolved.items()}
    identity = {**references, **sections["bundle"], "runtime": runtime, "fingerprint": source.fingerprint}
    label = f"evaluation-{split_uri(split_reference(references['bundle'])[0])[1]}"[:40]
    name = run_name(label, data, identity)
    settings = {"validate_dataset": _validation(store, data, source, config)}
    for which, task in (("bundle", "evaluate"), ("baseline", "evaluate_baseline")):
        if which not in manifests:
            # The task is not run; its input must be a struct all the same.
            settings[task] = StepSettings(store=store, code=results_source())
            continue
        manifest = manifests[which]
        settings[task] = StepSettings(
            model=manifest.model,
            store=store,
            code=results_source(),
            config=sections[which],
            runtime=runtime,
            index=run_output(store, name, f"{task}.json"),
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
        notes=notes,
        bundle=references["bundle"],
        baseline=references["baseline"],
        data=data,
    )


_CONFIGURE: Mapping[str, Callable[[CheckedForm], ConfiguredRun]] = {
    DETECTOR_TRAINING: _configure_training,
    DETECTOR_RETRAINING: _configure_retraining,
    MODEL_EVALUATION: _configure_evaluation,
}


def _check_network(reference: str, manifest: BundleManifest, runtime: RuntimeName) -> None:
    file = {"mindspore": WEIGHTS, "mindir": MINDIR, "onnx": ONNX, "int8": ONNX_INT8}[runtime]
    uri = split_reference(reference)[0]
    if manifest.kind != "detector":
        raise InputError(f"{uri}: this is the bundle of a {manifest.kind}, not of a detector")
    if file not in manifest.files:
        raise InputError(f"{uri}: runtime = {runtime} needs the file {file}, which this bundle does not have")


def bundle_config(manifest: BundleManifest, form: Form) -> ResolvedConfig:
    """Return the configuration that a bundle was trained with, under what a form says.

    Keys and values of the bundle that this version does not know are left out, and printed to standard error.

    Raises:
        InputError: A setting is unknown or not allowed.
    """
    kept, gone = allowed_values({name: manifest.config.get(name, {}) for name in ("data", "augment", "train")})
    if gone:
        print(f"left out of the bundle's configuration: {', '.join(gone)}", file=sys.stderr, flush=True)
    return resolve_form(form, manifest.model, kept)


def _bundle_of(checked: CheckedForm, field_name: str) -> str:
    """Return the URI of the bundle that a field names, itself or by a pointer; empty for an empty one."""
    place = checked.place(field_name)
    bundle = pointed_bundle(place)
    return bundle if bundle == place else checked_place(f"the bundle that {place} names", bundle, checked.is_remote)


def _trained_run(
    pipeline: str,
    checked: CheckedForm,
    data: str,
    source: SourceFacts,
    notes: tuple[str, ...],
    more: Mapping[str, str],
) -> ConfiguredRun:
    config, store = checked.resolved.config, checked.store
    pretrain = config.pretrain
    images_fingerprint = class_fingerprint(pretrain.data) if pretrain.data and pretrain.enabled else ""
    identity = {
        "pipeline": pipeline,
        "config": _named_values(config),
        "fingerprint": source.fingerprint,
        "images": images_fingerprint,
        "version": more.get("version", ""),
    }
    name = run_name(config.model, data, identity)
    settings = {"validate_dataset": _validation(store, data, source, config)}
    for step in _steps(pipeline):
        settings[step] = StepSettings(
            model=config.model,
            store=store,
            code=weights_source() if step in _WEIGHTS_STEPS else results_source(),
            config=read_sections(config, step),
        )
    settings["pretrain_backbone"] = settings["pretrain_backbone"].model_copy(update={"fingerprint": images_fingerprint})
    launch = {"launcher": checked.launcher, "cluster": dict(checked.cluster)}
    settings["train"] = settings["train"].model_copy(update=launch)
    index = run_output(store, name, RESULT)
    if pipeline == DETECTOR_TRAINING:
        last = {"version": more.get("version", ""), "index": index}
        settings["publish"] = settings["publish"].model_copy(update=last)
    else:
        settings["evaluate_current"] = settings["evaluate_current"].model_copy(update={"current": more["current"]})
        last = {"index": index, "data": data, "fingerprint": source.fingerprint}
        last |= {"latest": more["latest"], "current": more["current"]}
        settings["promote"] = settings["promote"].model_copy(update=last)
    facts = {"data": data, "fingerprint": source.fingerprint, "launcher": checked.launcher}
    facts |= {"version": more.get("version", "")}
    estimate = _estimate(config, source, checked)
    return ConfiguredRun(
        pipeline=pipeline,
        name=name,
        store=store,
        resolved=checked.resolved,
        settings=settings,
        facts=facts,
        images=source.images,
        estimate=estimate,
        notes=notes + _space_notes(store, estimate) + _memory_notes(config, checked, estimate),
        data=data,
    )


def _named_values(config: Config) -> dict[str, Any]:
    """Return what of a configuration the name of a run depends on.

    Anchors count however they are written. The model's own are left out, so that a run without others is named as it
    was before there was the key.
    """
    values = config.model_dump(mode="json", exclude={**_BY_FINGERPRINT, "train": {"anchors"}})
    anchors = other_anchors(config)
    if anchors is not None:
        values["train"]["anchors"] = anchors
    return values


def _steps(pipeline: str) -> tuple[str, ...]:
    """Return the steps of a pipeline that are handed settings of a configuration, in the order of the catalogue."""
    steps = steps_of(task_names(pipeline_text(pipeline)))
    return tuple(step.name for step in steps if step.name not in (STEP, "validate_dataset"))


def _flat(config: Config) -> dict[str, Any]:
    """Return the values of a configuration by dotted key."""
    flat: dict[str, Any] = {}
    for name, value in config.model_dump(mode="json").items():
        flat |= {f"{name}.{key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _validation(store: str, data: str, source: SourceFacts, config: Config) -> StepSettings:
    return StepSettings(
        model=config.model,
        store=store,
        code=results_source(),
        data=data,
        fingerprint=source.fingerprint,
        config=read_sections(config, "validate_dataset"),
    )


def _look(data: str, config: Config) -> tuple[SourceFacts, tuple[str, ...]]:
    """Look at a data set; return what was found, and how."""
    check_actions(config.data.findings)
    start = time.monotonic()
    source = source_facts(data, config.data)
    seconds = time.monotonic() - start
    split = config.evaluate.split
    if split not in source.images and split not in REQUIRED_SPLITS:
        raise InputError(f"evaluate.split: {data} has no split {split!r}{suggest(split, source.images)}")
    how = "listed, by sizes and checksums" if source.is_listed else "read"
    return source, (f"the data was {how}, in {seconds:.1f} s: fingerprint {source.fingerprint[:12]}",)


def _version_notes(checked: CheckedForm, version: str) -> tuple[str, ...]:
    place = join_uri(checked.store, "models", checked.resolved.config.model, version)
    if not open_store(place).exists(MANIFEST_NAME):
        return ()
    return (f"version {version} is at {place} already: this run fails at the end unless it makes the same networks",)


def _space_notes(store: str, estimate: RunEstimate) -> tuple[str, ...]:
    """Say where the disk of a store that is a folder has less space than a run takes; how much it takes is no limit."""
    path = open_store(store).local_path()
    available = None if path is None else available_bytes(path)
    if available is None or available >= estimate.disk:
        return ()
    return (f"{store} has {megabytes(available)} of space left, less than that: free some, or choose another store",)


def _memory_notes(config: Config, checked: CheckedForm, estimate: RunEstimate) -> tuple[str, ...]:
    """Say where a training takes more memory than its machine or pod has; of a card, and of a step's pod, not known."""
    processes, available, where = config.train.processes, None, "this machine, or its container, allows"
    if checked.launcher == VOLCANO:
        cluster = checked_settings(VOLCANO, checked.cluster)
        processes, available = processes // cluster.nodes_for(processes), cluster.memory_bytes
        where = f"a pod has (cluster setting memory = {cluster.memory})"
    elif not checked.is_remote and not os.environ.get(RUN_ID):
        available = usable_memory()
    needed = processes * ((estimate.memory if config.train.device_target == "CPU" else 0) + estimate.loader_memory)
    if available is None or needed <= available:
        return ()
    return (
        f"{where} {size_words(available)} of memory, less than the {size_words(needed)} that the training takes: lower "
        "train.per_batch_size, data.cache_limit_mb or data.workers, or allow it more",
    )


def _estimate(config: Config, source: SourceFacts, checked: CheckedForm) -> RunEstimate:
    processes, nodes = config.train.processes, 1
    # Of a pod that is not there yet nothing is known.
    is_elsewhere = checked.is_remote and not os.environ.get(RUN_ID)
    cores = None if is_elsewhere else usable_processors()
    if checked.launcher == VOLCANO:
        cluster = checked_settings(VOLCANO, checked.cluster)
        cores, nodes = max(1, round(cluster.processors)), cluster.nodes_for(processes)
    return estimate_run(
        model_facts(config.model), config, source.images, data_bytes=source.size, cores=cores, nodes=nodes
    )


def _ungated(config: Config) -> Config:
    return config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"min_ap": 0.0})})
