"""Chosen settings that have no effect because of other settings."""

from __future__ import annotations

from collections.abc import Iterator

from kubeyolo.config.load import ResolvedConfig
from kubeyolo.config.training_schema import TrainConfig


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
        f"train.{key} = {getattr(train, key)} has no effect, because {reason}"
        for key, reason in dict(_reasons(train)).items()
        if resolved.is_set(f"train.{key}")
    )


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
    if train.label_smooth == "off":
        yield "label_smooth_factor", "train.label_smooth is off; set train.label_smooth=on"
    if train.patience and train.val_interval == 0:
        yield "patience", "train.val_interval is 0; set train.val_interval=auto"
