"""Warnings about schedules, averages, validations and checkpoints that do not fit the length of a training.

Also warnings about settings of the augmentation that have no effect.
"""

from __future__ import annotations

import numpy as np

from kubeyolo.config.training_schema import AugmentConfig, TrainConfig
from kubeyolo.formats import counted, share_text
from kubeyolo.training.accumulation import build_accumulation
from kubeyolo.training.schedules import build_schedule, is_annealed, warmup_steps

MOST_FRESH = 0.1
"""Smallest share of fresh weights in the published average that causes a warning."""

LEAST_UPDATES = 500
"""Number of updates below which a training that adds the gradients of several batches causes a warning."""

_UPDATES_ADDED = 1_000_000


def schedule_warnings(train: TrainConfig, augment: AugmentConfig, steps_per_epoch: int) -> list[str]:
    """Warn if the warm-up, milestones or the end of mosaic do not fit the length of the training."""
    warnings = []
    epochs, steps = train.max_epoch, train.max_epoch * steps_per_epoch
    warmup = warmup_steps(steps_per_epoch, train.warmup_epochs, train.warmup_steps)
    if warmup >= steps:
        reached = build_schedule(train, steps_per_epoch).at(steps - 1).weight
        warnings.append(
            f"the warm-up of {warmup} steps (train.warmup_epochs = {train.warmup_epochs:g}, at least "
            f"train.warmup_steps = {train.warmup_steps}) does not end within the training of {counted(steps, 'step')}: "
            f"the learning rate rises to {reached:.3g} of train.lr = {train.lr:g}; train for more epochs (from "
            f"train.max_epoch = {warmup // steps_per_epoch + 1} on), lower both keys, or leave out the warm-up with "
            "train.warmup_epochs = 0."
        )
    missed = [epoch for epoch in train.lr_epochs if epoch >= epochs]
    if train.lr_scheduler == "exponential" and missed:
        never = "never falls" if len(missed) == len(train.lr_epochs) else "does not fall there"
        warnings.append(
            f"train.lr_epochs has {', '.join(map(str, missed))}, but the last of the {epochs} epochs (train.max_epoch) "
            f"is {epochs - 1}, counted from 0: the learning rate {never}; set train.lr_epochs below "
            f"{epochs}."
        )
    if is_annealed(train) and train.t_max < epochs - 1:
        warnings.append(
            f"train.t_max = {train.t_max} is less than the {epochs} epochs (train.max_epoch): the learning rate rises "
            f"again from epoch {train.t_max} on; set train.t_max to {epochs}."
        )
    if is_annealed(train) and train.eta_min > train.lr:
        warnings.append(
            f"train.eta_min = {train.eta_min:g} is larger than train.lr = {train.lr:g}: the learning rate rises where "
            "it should fall; set train.eta_min below train.lr."
        )
    if augment.close_mosaic >= epochs and (augment.mosaic or augment.mixup):
        off = " and ".join(f"augment.{name} = 0" for name in ("mosaic", "mixup") if getattr(augment, name))
        warnings.append(
            f"augment.close_mosaic = {augment.close_mosaic} leaves mosaic and mixup out of all {epochs} epochs "
            f"(train.max_epoch); set it below {epochs}, or {off} if this is intended."
        )
    return warnings


def idle_warnings(augment: AugmentConfig) -> list[str]:
    """Warn about settings of the augmentation that have no effect because mosaics are off."""
    idle = [("copy_paste", "objects are copied only within mosaics")] if augment.copy_paste else []
    if augment.mixup and augment.mixup_mosaics_only:
        idle.append(("mixup", "augment.mixup_mosaics_only is set"))
    return [
        f"augment.{name} = {getattr(augment, name):g} has no effect: {reason}, and augment.mosaic = 0; set "
        f"augment.mosaic above 0, or augment.{name} = 0 if this is intended."
        for name, reason in idle
        if not augment.mosaic
    ]


def reach_warnings(train: TrainConfig, steps_per_epoch: int) -> list[str]:
    """Warn if the average still has a large share of the initial weights, or an interval is longer than the training.

    Args:
        train: Settings of the training.
        steps_per_epoch: Steps of an epoch.
    """
    epochs, steps = train.max_epoch, train.max_epoch * steps_per_epoch
    accumulation = build_accumulation(train, train.per_batch_size * train.processes, steps_per_epoch)
    updates, _ = accumulation.updates_after(steps)
    warnings = []
    if accumulation.batches > 1 and updates < LEAST_UPDATES:
        warnings.append(
            f"the weights are updated only {updates} times in {steps} steps, because the gradients of "
            f"{accumulation.batches} batches are added (train.nominal_batch = {train.nominal_batch}): with --set "
            "train.nominal_batch=0 they are updated after every step."
        )
    fresh = fresh_share(updates, train.ema_decay, train.ema_tau)
    if fresh >= MOST_FRESH:
        tau = float(TrainConfig.model_fields["ema_tau"].default)
        warnings.append(
            f"{share_text(fresh, 0)} of the published average of the weights are still the initial weights "
            f"after all {updates} updates (train.ema_decay = {train.ema_decay:g}, train.ema_tau = "
            f"{train.ema_tau:g}): with --set train.ema_tau={tau:g} the average follows the training from the start."
        )
    if train.val_interval != "auto" and train.val_interval > epochs:
        warnings.append(
            f"train.val_interval = {train.val_interval} is more than the {epochs} epochs (train.max_epoch): only the "
            f"last epoch is validated, so the last weights are published; set it to {epochs - 1} or less, or to 0 if "
            "this is intended."
        )
    if train.ckpt_interval > steps:
        warnings.append(
            f"train.ckpt_interval = {train.ckpt_interval} is more than all {steps} steps: the only checkpoint is "
            "written at the end, and a training that is killed starts again from step 0; set it lower, or to 0 for a "
            "checkpoint after each epoch."
        )
    return warnings


def fresh_share(updates: int, decay: float, tau: float) -> float:
    """Return the share, 0..1, of the initial weights in the average after a number of updates.

    It is the product of :func:`kubeyolo.training.schedules.ema_decay` over all updates.
    """
    if decay <= 0:
        return 0.0
    added = min(updates, _UPDATES_ADDED)
    decays = decay * -np.expm1(-np.arange(1, added + 1) / tau)
    # After that the decay is almost constant, or the share is already 0.
    return float(np.exp(np.log(decays).sum() + (updates - added) * np.log(decay)))
