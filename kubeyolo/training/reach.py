"""Settings that a training is too short for: the average of its weights, its validations and its checkpoints."""

from __future__ import annotations

import numpy as np

from kubeyolo.config.schema import TrainConfig

MOST_FRESH = 0.1
"""Share of fresh weights in the published average that is warned of."""

_UPDATES_ADDED = 1_000_000


def reach_warnings(train: TrainConfig, steps_per_epoch: int) -> list[str]:
    """Warn of an average that has not left the fresh weights, and of intervals longer than the training.

    Args:
        train: Settings of the training.
        steps_per_epoch: Steps of an epoch.
    """
    epochs, steps = train.max_epoch, train.max_epoch * steps_per_epoch
    warnings = []
    fresh = fresh_share(steps, train.ema_decay, train.ema_tau)
    if fresh >= MOST_FRESH:
        tau = float(TrainConfig.model_fields["ema_tau"].default)
        warnings.append(
            f"{100 * fresh:.0f} % of the average of the weights, which is what is published, are still the weights of "
            f"the start after all {steps} steps (train.ema_decay = {train.ema_decay:g}, train.ema_tau = "
            f"{train.ema_tau:g}): with --set train.ema_tau={tau:g} it follows the training from its beginning."
        )
    if train.val_interval > epochs:
        warnings.append(
            f"train.val_interval = {train.val_interval} is more than the {epochs} epochs (train.max_epoch): nothing is "
            f"validated while training; set it to {epochs} or less, or to 0 if that is meant."
        )
    if train.ckpt_interval > steps:
        warnings.append(
            f"train.ckpt_interval = {train.ckpt_interval} is more than all {steps} steps: the only checkpoint is that "
            "of the end, and a training that is killed begins anew; set it lower, or to 0 for one an epoch."
        )
    return warnings


def fresh_share(updates: int, decay: float, tau: float) -> float:
    """Return which share, 0..1, the weights of the start have in their average after a number of updates.

    It is the product of :func:`kubeyolo.training.schedules.ema_decay` over all updates.
    """
    if decay <= 0:
        return 0.0
    added = min(updates, _UPDATES_ADDED)
    decays = decay * -np.expm1(-np.arange(1, added + 1) / tau)
    # Further on the decay is as good as constant, or nothing is left already.
    return float(np.exp(np.log(decays).sum() + (updates - added) * np.log(decay)))
