"""Checks a filled-in form: settings, names and URIs, without reading the content of the URIs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kubeyolo.bundle import check_version
from kubeyolo.catalogue import DETECTOR_RETRAINING, MODEL_EVALUATION, PIPELINES, steps_of
from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.config.form import check_filled, resolve_form
from kubeyolo.config.load import ResolvedConfig
from kubeyolo.config.schema import Config
from kubeyolo.config.text import read_text
from kubeyolo.errors import InputError, check_known, one_line
from kubeyolo.evaluation.results import NEED_OPENVINO, RuntimeName, check_runtime
from kubeyolo.index import RUN_ID, STORE
from kubeyolo.launch.launcher import Launcher, find_launcher
from kubeyolo.launch.policy import check_mounted
from kubeyolo.models.anchors import trained_facts
from kubeyolo.models.named_facts import check_batch_norm, check_export_size, check_image_size, check_precision
from kubeyolo.pointers import check_pointer_name
from kubeyolo.steps.export import check_export
from kubeyolo.steps.quantization_training import check_quantize
from kubeyolo.steps.start import check_start
from kubeyolo.storage.location import FileLocation, absolute, parse
from kubeyolo.storage.place import Place, Stores

Form = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class CheckedForm:
    """A form that was checked without reading the content of its URIs.

    Attributes:
        form: Text by field.
        resolved: The configuration.
        store: URI of the store; empty if neither the form nor the environment names a store.
        launcher: The launcher, which starts training processes.
        cluster: The cluster settings of the form, by key.
        runtime: Runtime of the networks of an evaluation.
        is_remote: Whether the steps run in pods, which cannot read folders of this machine.
        memory_limits: Memory that the pods of steps may use, by step, as Kubernetes writes it.
        stores: Open stores of the URIs in the form.
    """

    form: Form
    resolved: ResolvedConfig
    store: str
    launcher: Launcher = field(default_factory=find_launcher)
    cluster: Mapping[str, Any] = field(default_factory=dict)
    runtime: RuntimeName = "mindspore"
    is_remote: bool = False
    memory_limits: Mapping[str, str] = field(default_factory=dict)
    stores: Stores = field(default_factory=Stores, repr=False, compare=False)

    def at(self, text: str) -> Place:
        """Return the place of a URI or a reference in the open stores of this form."""
        return self.stores.place(text)

    def place(self, field_name: str) -> str:
        """Return the URI in a field, made absolute; empty if the field is empty.

        Raises:
            InputError: Pods cannot reach the URI.
        """
        return checked_place(f"the field {field_name}", self.form.get(field_name, ""), self.is_remote)


def check_form(pipeline: str, form: Form, is_remote: bool = False) -> CheckedForm:
    """Check a form without reading the store or the data.

    Raises:
        InputError: A setting is unknown, not allowed, given twice, or contradicts another setting; pods cannot reach a
            URI; a name is invalid.
    """
    form = _stripped(pipeline, form)
    check_filled(form, CompiledPipeline.named(pipeline).required_fields)
    resolved = resolve_form(form)
    store = checked_place("the field store", form.get("store", ""), is_remote) or _default_store(is_remote)
    checked = CheckedForm(form=form, resolved=resolved, store=store, is_remote=is_remote)
    for name in ("data", "pointer", "bundle", "baseline"):
        checked.place(name)
    return _check_settings(pipeline, checked)


def check_settings(pipeline: str, form: Form) -> None:
    """Check the settings of a form whose URIs are filled in later.

    Raises:
        InputError: A setting is unknown, not allowed, given twice, or contradicts another setting.
    """
    form = _stripped(pipeline, form)
    _check_settings(pipeline, CheckedForm(form=form, resolved=resolve_form(form), store=""))


def _stripped(pipeline: str, form: Form) -> Form:
    check_known("pipeline", pipeline, PIPELINES)
    return {name: str(value).strip() for name, value in form.items()}


def _check_settings(pipeline: str, checked: CheckedForm) -> CheckedForm:
    if pipeline == MODEL_EVALUATION:
        cluster = parse_cluster(checked.form.get("cluster", ""))
        launcher = find_launcher(checked.form.get("launcher", ""), cluster)
        runtime = check_runtime(checked.form.get("runtime") or "mindspore")
        if checked.is_remote and runtime in NEED_OPENVINO:
            raise InputError(
                f"runtime = {runtime}: the images of the evaluation do not have OpenVINO; choose another runtime, "
                "or run 'kubeyolo evaluate' on a machine that has it"
            )
        return replace(checked, runtime=runtime, launcher=launcher, cluster=cluster)
    return _check_training(pipeline, checked)


def _default_store(is_remote: bool) -> str:
    """Return the store to use if the field is empty; empty if only the pods know the store of their cluster."""
    if is_remote and not os.environ.get(RUN_ID):
        return ""
    return checked_place(f"the store of the environment ({STORE})", os.environ.get(STORE, ""), is_remote)


def _check_training(pipeline: str, checked: CheckedForm) -> CheckedForm:
    form, config = checked.form, checked.resolved.config
    check_start(checked.resolved, is_retraining=pipeline == DETECTOR_RETRAINING)
    check_image_size(config)
    check_export_size(config)
    check_batch_norm(config, "train")
    trained_facts(config)
    if form.get("version"):
        check_version(form["version"])
    check_pointer_name(config.retrain.latest)
    places = {
        "pretrain": {"data": checked_place("pretrain.data", config.pretrain.data, checked.is_remote)},
        "train": {"weights": checked_place("train.weights", config.train.weights, checked.is_remote)},
        "retrain": {"latest": checked_place("retrain.latest", config.retrain.latest, checked.is_remote)},
    }
    sections = {name: getattr(config, name).model_copy(update=values) for name, values in places.items()}
    config = config.model_copy(update=sections)
    cluster = parse_cluster(form.get("cluster", ""))
    launcher = find_launcher(form.get("launcher", ""), cluster)
    resolved = launcher.placed(ResolvedConfig(config, checked.resolved.origins))
    steps = [step.name for step in steps_of(CompiledPipeline.named(pipeline).tasks)]
    launcher.check(resolved.config, steps, checked.is_remote)
    check_precision(resolved.config)
    check_quantize(resolved.config, launcher, checked.is_remote)
    check_formats(resolved.config)
    if pipeline == DETECTOR_RETRAINING and resolved.config.quantize.on_miss == "leave_out":
        raise InputError(
            "quantize.on_miss = leave_out: the model of a retraining replaces one with an int8 network, so it needs "
            "its own; leave quantize.on_miss out, or set it to fail"
        )
    if pipeline == DETECTOR_RETRAINING and resolved.config.quantize.runtime != "onnxruntime":
        raise InputError(
            f"quantize.runtime = {resolved.config.quantize.runtime}: a retraining compares the int8 networks of both "
            "models in onnxruntime; leave quantize.runtime out"
        )
    return replace(checked, resolved=resolved, launcher=launcher, cluster=cluster)


def check_formats(config: Config) -> None:
    """Refuse export formats with which a step of a pipeline would fail.

    Raises:
        InputError: ONNX, which is quantized later, is missing, or a file cannot be written; see
            :func:`kubeyolo.steps.export.check_export`.
    """
    if "onnx" not in config.export.formats:
        raise InputError(
            f"export.formats = {list(config.export.formats)}: the pipeline quantizes the ONNX network; "
            "add onnx to the formats"
        )
    check_export(config)


def parse_cluster(text: str) -> dict[str, Any]:
    """Return the cluster settings in a text: the name of a preset, or a mapping as JSON or YAML.

    Raises:
        InputError: The text is neither the name of a preset nor a mapping.
    """
    value = read_text(text, "the field cluster")
    if value is None:
        return {}
    if isinstance(value, str):
        return {"preset": value}
    if not isinstance(value, dict):
        raise InputError(
            f"the field cluster is {one_line(text, 80)!r}: expected the name of a preset, such as cpu, or settings, "
            'such as {"preset": "cpu", "queue": "training"}'
        )
    return {str(key): each for key, each in value.items() if each is not None}


def checked_place(what: str, place: str, is_remote: bool) -> str:
    """Return a path or URI, made absolute; empty if the text is empty.

    Args:
        what: Where the path or URI was given, for the error.
        place: Path or URI.
        is_remote: Whether pods have to reach it.

    Raises:
        InputError: The text is neither a path nor a URI, pods cannot reach it, or the policy of the cluster refuses it.
    """
    place = place.strip()
    if not place:
        return ""
    try:
        location = parse(place)
    except InputError as error:
        raise InputError(f"{what}: {error}") from error
    if is_remote and isinstance(location, FileLocation):
        raise InputError(
            f"{what} = {place}: pods cannot read folders of this machine; copy it into the object store with "
            f"'kubeyolo copy {place} minio://bucket/prefix', and give that URI"
        )
    if is_remote:
        check_mounted(what, place)
    return absolute(place)
