"""Chosen settings that have no effect because of other settings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from kubeyolo.catalogue import STEPS
from kubeyolo.config.load import ResolvedConfig
from kubeyolo.config.schema import Config
from kubeyolo.config.training_schema import TrainConfig

COMMAND_STEPS = {"evaluate": "evaluate", "export": "export_model", "quantize": "quantize"}
"""The step of each command that works on a bundle."""


def idle_settings(resolved: ResolvedConfig, is_retraining: bool = False) -> tuple[str, ...]:
    """Return a sentence for each chosen setting of the training that has no effect, with the reason and a remedy.

    Values of presets and defaults are not mentioned.

    Args:
        resolved: The configuration.
        is_retraining: Whether the training is that of the pipeline detector-retraining.
    """
    train, start = resolved.config.train, resolved.config.retrain.start_from
    of_retraining = f"retrain.start_from = {start} has no effect: only the pipeline detector-retraining reads it"
    before = (of_retraining,) if start and not is_retraining and resolved.is_set("retrain.start_from") else ()
    return before + tuple(
        f"train.{key} = {_typed(getattr(train, key))} has no effect, because {reason}"
        for key, reason in dict(_reasons(train)).items()
        if resolved.is_set(f"train.{key}")
    )


def _typed(value: Any) -> str:
    """Return a value as it is typed: a list in brackets."""
    return json.dumps(value) if isinstance(value, tuple) else str(value)


def idle_size(resolved: ResolvedConfig) -> tuple[str, ...]:
    """Return a sentence if the trained and the exported networks of a run are evaluated at different sizes."""
    config = resolved.config
    exported = config.export.input_size or (config.train.image_size, config.train.image_size)
    key = "export.image_size" if config.export.input_size else "train.image_size"
    if config.evaluate.input_size in (None, exported) or not resolved.is_set("evaluate.image_size"):
        return ()
    return (
        f"evaluate.image_size = {config.evaluate.image_size} has no effect on the exported networks: they are "
        f"evaluated at {key} = {config.value(key)}, so their metrics differ from those of the trained network",
    )


def idle_in_command(command: str, config: Config, keys: Iterable[str], runtime: str = "") -> tuple[str, ...]:
    """Return a sentence for each given key that has no effect in a command on a bundle, with the reason and a remedy.

    Args:
        command: evaluate, export or quantize.
        config: The configuration.
        keys: The dotted keys that were given.
        runtime: The runtime, for evaluate.
    """
    reads = STEPS[COMMAND_STEPS[command]].reads
    given = list(dict.fromkeys(keys))
    unread = [key for key in given if key != "model" and not any(each in (key, key.split(".")[0]) for each in reads)]
    notes = [f"{', '.join(unread)} {'have' if len(unread) > 1 else 'has'} no effect on {command}"] if unread else []
    reasons = dict([*_evaluation_reasons(command, runtime), *(_export_reasons(config) if command == "export" else ())])
    return (
        *notes,
        *(f"{key} = {config.value(key)} has no effect on {command}: {reasons[key]}" for key in given if key in reasons),
    )


def _evaluation_reasons(command: str, runtime: str) -> Iterator[tuple[str, str]]:
    """Yield keys of the section evaluate that a command reads without effect, each with the reason."""
    if command == "evaluate":
        if runtime and runtime not in ("mindspore", "mindir"):
            yield "evaluate.device_target", f"the runtime {runtime} runs on processors"
        return
    if command == "export":
        yield "evaluate.image_size", "the ONNX file is evaluated at its own size; set export.image_size"
    else:
        yield "evaluate.image_size", "the int8 file takes images of the size of the ONNX file"
    yield "evaluate.min_ap", "only evaluate compares AP with it"
    yield "evaluate.test_dev", "only evaluate writes detections"
    yield "evaluate.device_target", "onnxruntime runs on processors"


def _export_reasons(config: Config) -> Iterator[tuple[str, str]]:
    """Yield keys of the section export that have no effect because of the formats, each with the reason."""
    formats = config.export.formats
    if formats == ("onnx",):
        yield "export.batch_size", "ONNX accepts any batch size; add mindir or air to export.formats"
    if formats == ("air",):
        for key in ("export.parity_images", "export.parity_rtol"):
            yield key, "only Ascend's own tools run AIR; add onnx or mindir to export.formats"
    if "onnx" not in formats:
        for key in ("export.opset", "export.parity_ap"):
            yield key, "only the ONNX file has it; add onnx to export.formats"


def _reasons(train: TrainConfig) -> Iterator[tuple[str, str]]:
    """Yield the keys without effect, each with the reason and what to set."""
    scheduler = f"train.lr_scheduler is {train.lr_scheduler}"
    if train.lr_scheduler != "cosine_annealing":
        for key in ("t_max", "eta_min"):
            yield key, f"{scheduler}; set train.lr_scheduler=cosine_annealing"
    elif not train.t_max:
        yield "eta_min", "train.t_max is 0; set train.t_max to the epochs of the cosine, or use train.lr_final"
    if train.lr_scheduler != "exponential":
        for key in ("lr_epochs", "lr_gamma"):
            yield key, f"{scheduler}; set train.lr_scheduler=exponential"
    else:
        yield "lr_final", f"{scheduler}; use train.lr_gamma"
    if train.lr_scheduler == "cosine_annealing" and train.t_max:
        yield "lr_final", "train.t_max is not 0; use train.eta_min, or set train.t_max=0"
    if not train.warmup_epochs:
        for key in ("warmup", "warmup_steps", "warmup_bias_lr", "warmup_momentum"):
            yield key, "train.warmup_epochs is 0; set it to the epochs of the warm-up"
    elif train.warmup != "one_cycle":
        for key in ("warmup_bias_lr", "warmup_momentum"):
            yield key, f"train.warmup is {train.warmup}; set train.warmup=one_cycle"
    if not train.multi_scale:
        for key in ("sizes", "resize_rate"):
            yield key, "train.multi_scale is false; set train.multi_scale=true"
    if train.scaling == "none":
        yield "grad_scaler_value", "the loss is not scaled; set train.grad_scaler=static or dynamic"
    if train.label_smooth == "off":
        yield "label_smooth_factor", "train.label_smooth is off; set train.label_smooth=on"
    if train.patience and train.val_interval == 0:
        yield "patience", "train.val_interval is 0; set train.val_interval=auto"
