"""Continuing a training with a larger length or another number of processes, and how that is recorded.

A longer training keeps its finished steps; the remaining steps follow the schedule of the new length. So the weights
depend on the step at which the training was extended, and on its former length. The identity has both under
``extended``, a key that only the identity of an extended training has.

Another number of processes with the same images in a step changes neither the order of the images nor the schedule, but
the order of additions, and the images of which a batch normalization takes the statistics. The identity has the step
and the former numbers under ``redistributed``.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from kubeyolo.config.schema import Config
from kubeyolo.config.section import Section
from kubeyolo.config.text import read_text
from kubeyolo.errors import InputError

EXTENDED = "extended"
"""Key of an identity: a list with ``step`` and the former lengths by key for each time the training was extended."""

REDISTRIBUTED = "redistributed"
"""Key of an identity: a list with ``step`` and the former processes and images of each, for each change."""

PROCESSES, PER_BATCH_SIZE = "train.processes", "train.per_batch_size"
"""Settings that may change together if their product, the number of images of a step, stays."""

LENGTHS = {"train.max_epoch": "epochs", "pretrain.max_epoch": "epochs", "pretrain.max_steps": "steps"}
"""Settings that limit the length of a training, each with its unit."""

ANCHORS = "train.anchors"
"""An identity has this key only if the anchors differ from the model's own anchors, in any form of writing them."""

LOSS_SCALE = "train.loss_scale"
"""An identity has this key only if the divisor differs from the model's own divisor."""

PARTNER_WINDOW = "augment.partner_window"
"""Identities of versions that drew partners from all images lack this key; ``auto`` continues to do so for them."""

MULTI_SCALE = ("train.multi_scale", "train.sizes", "train.resize_rate")
"""An identity has these keys only if the size of the images changes; the sizes are then those of the training."""

PRECISION, GRAD_SCALER, SCALER_VALUE = "train.precision", "train.grad_scaler", "train.grad_scaler_value"
"""An identity has the values that ``auto`` stands for, and the third key only if the loss is scaled."""

_ABSENT = {PRECISION: "float32", GRAD_SCALER: "none"}
"""Values of trainings of earlier versions, whose identities lack these keys; other keys had the schema's defaults."""

SYNC_BN = "train.sync_bn"
"""An identity has this key only if the training has several processes."""

_SMOOTHING = "train.label_smooth_factor"

KEEP = "train.keep"
"""Setting that says which weights are published; identities of versions that published the last weights lack it."""

VALIDATED = (
    KEEP,
    "train.top_k",
    "train.patience",
    "train.min_delta",
    "train.val_interval",
    "train.val_split",
    "evaluate.image_size",
    "evaluate.conf_threshold",
    "evaluate.iou_threshold",
    "evaluate.max_det",
    "evaluate.multi_label",
    "evaluate.nms",
    "evaluate.engine",
)
"""Settings that an identity has only if validations while training decide which weights are published."""

Identity = Mapping[str, Any]


def changed_keys(saved: Identity, now: Identity) -> list[str]:
    """Return the keys whose values differ between two identities, sorted.

    The keys ``extended`` and ``redistributed`` are ignored, and processes with the same number of images in a step are
    no change. A setting that only one identity has was added or removed later: its value is compared with its default.
    A training of a version that did not choose weights by validations may be continued with any choice.
    """
    keys = (saved.keys() | now.keys()) - {EXTENDED, REDISTRIBUTED}
    if is_redistributed(saved, now):
        keys -= {PROCESSES, PER_BATCH_SIZE}
        if 1 in (saved[PROCESSES], now[PROCESSES]):
            keys -= {SYNC_BN}  # One process has the statistics of all images in any case.
    if (KEEP in saved) != (KEEP in now) and saved.get("task") == now.get("task"):
        keys -= {*VALIDATED}
    return sorted(key for key in keys if value_of(saved, key) != value_of(now, key))


def missing_values(saved: Identity, now: Identity) -> dict[str, Any]:
    """Return the settings that continue a training of an earlier version as it was, by key.

    These are the defaults of settings that the earlier version did not have and that now have a different value. The
    result is empty if more than these settings and the length differs.
    """
    changed = [key for key in changed_keys(saved, now) if key not in LENGTHS]
    if any(key in saved or key in (ANCHORS, LOSS_SCALE, *MULTI_SCALE) for key in changed):
        return {}
    values = {key: value_of(saved, key) for key in changed}
    return {} if None in values.values() else values


def is_longer(saved: Identity, now: Identity) -> bool:
    """Tell whether a training differs from the saved training only in its length, and is longer."""
    changed = changed_keys(saved, now)
    return bool(changed) and all(key in LENGTHS and value_of(now, key) > value_of(saved, key) for key in changed)


def is_shorter(saved: Identity, now: Identity) -> bool:
    """Tell whether a training differs from the saved training only in its length, and one of the lengths is shorter."""
    changed = changed_keys(saved, now)
    return bool(changed) and LENGTHS.keys() >= {*changed} and not is_longer(saved, now)


def images_of_step(identity: Identity) -> int | None:
    """Return the number of images of a step in all processes; None if the identity is not that of a detector."""
    if PROCESSES not in identity or PER_BATCH_SIZE not in identity:
        return None
    return int(identity[PROCESSES]) * int(identity[PER_BATCH_SIZE])


def is_redistributed(saved: Identity, now: Identity) -> bool:
    """Tell whether a training has other processes than the saved training, and the same number of images in a step."""
    images = images_of_step(saved)
    return images is not None and images == images_of_step(now) and saved[PROCESSES] != now[PROCESSES]


def continued_identity(saved: Identity, now: Identity, step: int) -> dict[str, Any]:
    """Return the identity of a training that continues a saved training at a step: its current length and processes.

    A training without a window of partners does not get one.
    """
    values = {key: value for key, value in now.items() if key != PARTNER_WINDOW or key in saved}
    entries = {key: list(saved.get(key, ())) for key in (EXTENDED, REDISTRIBUTED)}
    if is_longer(saved, now):
        entries[EXTENDED].append({"step": step, **{key: saved[key] for key in changed_keys(saved, now)}})
    if is_redistributed(saved, now):
        former = {key: saved[key] for key in (PROCESSES, PER_BATCH_SIZE)}
        entries[REDISTRIBUTED].append({"step": step, **former})
    return {**values, **{key: value for key, value in entries.items() if value}}


def distribution_words(identity: Identity) -> str:
    """Return the processes of a training and their images: ``2 processes of 4 images``."""
    processes, images = identity[PROCESSES], identity[PER_BATCH_SIZE]
    each = "1 image" if images == 1 else f"{images} images"
    return f"1 process of {each}" if processes == 1 else f"{processes} processes of {each}"


def lengths(before: Identity, after: Identity) -> str:
    """Describe the lengths that differ: ``from 10 to 20 epochs``."""
    keys = [key for key in before if key in LENGTHS and before[key] != after.get(key)]
    return " and ".join(f"from {before[key]} to {after[key]} {LENGTHS[key]}" for key in keys)


def extension_lines(identity: Identity) -> list[str]:
    """Return a line for each time a training was extended: ``from 10 to 20 epochs at step 60``."""
    entries: Sequence[Identity] = identity.get(EXTENDED, ())
    lines = []
    for number, entry in enumerate(entries):
        after = dict(identity)
        for later in reversed(entries[number + 1 :]):
            after |= later
        lines.append(f"{lengths(entry, after)} at step {entry['step']}")
    return lines


def as_pairs(identity: Identity, keys: Sequence[str]) -> str:
    """Return the options that set keys to their values in an identity: ``--set train.max_epoch=20``.

    The factor of label smoothing in an identity is what ``train.label_smooth`` and the factor result in: the options
    set both, or turn smoothing off.
    """
    pairs = []
    for key in keys:
        if key == _SMOOTHING:
            pairs.append(pair_option("train.label_smooth", "on" if identity[key] else "off"))
        if key != _SMOOTHING or identity[key]:
            pairs.append(pair_option(key, identity[key]))
    return " ".join(pairs)


def pair_option(key: str, value: Any) -> str:
    """Return the option that sets a key to a value, quoted for a shell."""
    text = value if isinstance(value, str) and _reads_as(value, value) else json.dumps(value)
    return f"--set {shlex.quote(f'{key}={text}')}"


def _reads_as(text: str, value: Any) -> bool:
    try:
        return bool(read_text(text, "") == value)
    except InputError:
        return False


def value_of(identity: Identity, key: str) -> Any:
    """Return the value of a key in an identity, or the value of earlier versions: usually the default of the schema."""
    if key in identity or key in _ABSENT:
        return identity.get(key, _ABSENT.get(key))
    name, _, key_in_section = key.partition(".")
    section = Config.model_fields[name].annotation if name in Config.model_fields else None
    if isinstance(section, type) and issubclass(section, Section) and key_in_section in section.model_fields:
        return section().model_dump(mode="json")[key_in_section]
    return None
