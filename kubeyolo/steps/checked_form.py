"""What a filled-in form says by itself: its settings, names and places, without a look at what they name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kubeyolo.bundle import check_version
from kubeyolo.catalogue import MODEL_EVALUATION, PIPELINES
from kubeyolo.compiled.read import pipeline_text, required_fields
from kubeyolo.config.form import check_filled, resolve_form
from kubeyolo.config.load import ResolvedConfig
from kubeyolo.config.schema import Config
from kubeyolo.config.text import read_text
from kubeyolo.errors import InputError, one_line, suggest
from kubeyolo.evaluation.names import RuntimeName, check_runtime
from kubeyolo.index import RUN_ID, STORE
from kubeyolo.launch.launcher import LOCAL, VOLCANO, checked_settings
from kubeyolo.models.anchors import trained_facts
from kubeyolo.models.registry import check_batch_norm, check_image_size
from kubeyolo.pointers import check_pointer_name
from kubeyolo.storage.location import FileLocation, absolute, parse

Form = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class CheckedForm:
    """A form whose settings make sense by themselves; nothing was looked at but the form.

    Attributes:
        form: Text by field.
        resolved: The configuration.
        store: URI of the store; empty where neither the form nor the environment names one.
        launcher: Where training runs.
        cluster: What the form says of the cluster, by key.
        runtime: What runs the networks of an evaluation.
        is_remote: Whether the run is one of pods, which see no folder of this machine.
    """

    form: Form
    resolved: ResolvedConfig
    store: str
    launcher: str = ""
    cluster: Mapping[str, Any] = field(default_factory=dict)
    runtime: RuntimeName = "mindspore"
    is_remote: bool = False

    def place(self, field_name: str) -> str:
        """Return the URI that a field names, absolute; empty for an empty one.

        Raises:
            InputError: Pods cannot reach it.
        """
        return checked_place(f"the field {field_name}", self.form.get(field_name, ""), self.is_remote)


def check_form(pipeline: str, form: Form, is_remote: bool = False) -> CheckedForm:
    """Check what a form says by itself, without a look at the store or at the data.

    Raises:
        InputError: A setting is unknown, not allowed or given twice, or does not go with another one; a place is one
            that pods do not reach; a name is not possible.
    """
    _check_pipeline(pipeline)
    form = {name: str(value).strip() for name, value in form.items()}
    check_filled(form, required_fields(pipeline_text(pipeline)))
    resolved = resolve_form(form)
    store = checked_place("the field store", form.get("store", ""), is_remote) or _default_store(is_remote)
    checked = CheckedForm(form=form, resolved=resolved, store=store, is_remote=is_remote)
    for name in ("data", "pointer", "bundle", "baseline"):
        checked.place(name)
    return _check_settings(pipeline, checked)


def check_settings(pipeline: str, form: Form) -> None:
    """Check what a form without its places says: of one that is filled in later.

    Raises:
        InputError: A setting is unknown, not allowed or given twice, or does not go with another one.
    """
    _check_pipeline(pipeline)
    form = {name: str(value).strip() for name, value in form.items()}
    _check_settings(pipeline, CheckedForm(form=form, resolved=resolve_form(form), store=""))


def _check_pipeline(pipeline: str) -> None:
    if pipeline not in PIPELINES:
        raise InputError(f"unknown pipeline {pipeline!r}{suggest(pipeline, PIPELINES)}")


def _check_settings(pipeline: str, checked: CheckedForm) -> CheckedForm:
    if pipeline == MODEL_EVALUATION:
        return replace(checked, runtime=check_runtime(checked.form.get("runtime") or "mindspore"))
    return _check_training(checked)


def _default_store(is_remote: bool) -> str:
    """Return the store that an empty field stands for; that of a cluster is known in its pods alone."""
    if is_remote and not os.environ.get(RUN_ID):
        return ""
    return checked_place(f"the store of the environment ({STORE})", os.environ.get(STORE, ""), is_remote)


def _check_training(checked: CheckedForm) -> CheckedForm:
    form, config = checked.form, checked.resolved.config
    for name in ("weights", "start_from"):
        if form.get(name):
            raise InputError(
                f"{name} = {form[name]!r}: a training cannot start from the weights of a detector yet; leave the field "
                "empty (its backbone is pretrained where pretrain.enabled is true)"
            )
    check_formats(config)
    check_image_size(config)
    check_batch_norm(config, "train")
    trained_facts(config)
    if form.get("version"):
        check_version(form["version"])
    check_pointer_name(config.retrain.latest)
    places = {
        "pretrain": {"data": checked_place("pretrain.data", config.pretrain.data, checked.is_remote)},
        "retrain": {"latest": checked_place("retrain.latest", config.retrain.latest, checked.is_remote)},
    }
    sections = {name: getattr(config, name).model_copy(update=values) for name, values in places.items()}
    config = config.model_copy(update=sections)
    launcher = form.get("launcher") or LOCAL
    cluster = parse_cluster(form.get("cluster", ""))
    settings = checked_settings(launcher, cluster)
    if launcher == VOLCANO:
        settings.check_train(config.train)
    resolved = ResolvedConfig(config, checked.resolved.origins)
    return replace(checked, resolved=resolved, launcher=launcher, cluster=cluster)


def check_formats(config: Config) -> None:
    """Refuse formats of the export with which a later step of a pipeline would fail.

    Raises:
        InputError: There is no ONNX network to be quantized, or AIR is wanted off Ascend.
    """
    if "onnx" not in config.export.formats:
        raise InputError(
            f"export.formats = {list(config.export.formats)}: the pipeline quantizes the ONNX network; add onnx to them"
        )
    if "air" in config.export.formats and config.train.device_target != "Ascend":
        raise InputError(
            "export.formats: air can be written on an Ascend device only, and train.device_target is "
            f"{config.train.device_target}; drop air from export.formats"
        )


def parse_cluster(text: str) -> dict[str, Any]:
    """Return the settings of the cluster that a text gives: the name of a preset, or a mapping as JSON or YAML.

    Raises:
        InputError: It is neither.
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
    """Return an absolute path or URI; empty for an empty one.

    Args:
        what: What names the place, for the error.
        place: Path or URI.
        is_remote: Whether it is for pods.

    Raises:
        InputError: It is not a place, or one that pods do not reach.
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
            f"{what} = {place}: pods see no folder of this machine; copy it into the object store with "
            f"'kubeyolo copy {place} minio://bucket/prefix', and give that"
        )
    return absolute(place)
