"""The JSON document that describes a training run; ``python -m kubeyolo.training.worker`` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from kubeyolo.catalogue import READING_KEYS, STEPS, Step
from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError
from kubeyolo.models.anchors import other_anchors
from kubeyolo.training.extension import LENGTHS, as_pairs, changed_keys, is_shorter, pair_option
from kubeyolo.training.memory_advice import memory_remedy
from kubeyolo.work import Document, Work

WORKER_MODULE = "kubeyolo.training.worker"

_STEPS = {"detector": ("train", "train"), "backbone": ("pretrain_backbone", "pretrain")}
"""Step of the catalogue, and name of the work in its run, by task."""

_WITHOUT_EFFECT = {
    "data.workers",
    "data.cache",
    "data.cache_limit_mb",
    # Their effect is in the digest of the data set.
    *READING_KEYS,
    "pretrain.data",  # the identity has the digest of the images instead of their location
    "train.log_interval",
    "train.ckpt_interval",
    "train.keep_checkpoints",
    "train.val_interval",
    "train.tensorboard",
    "train.need_profiler",
}

_ANCHORS = "train.anchors"
"""An identity has this key only if the anchors differ from the model's own anchors, in any form of writing them."""

_OF_BACKBONES = tuple(key for key in STEPS["pretrain_backbone"].reads if "." in key)
"""Keys outside the section ``pretrain`` that a pretraining depends on."""


class TrainingSpec(Document):
    """A training run.

    Attributes:
        task: "detector" trains the detector, "backbone" pretrains its backbone as a classifier.
        dataset: URI of a validated data set; for a backbone also a folder or URI with one folder of images per class.
        output: URI of the folder that gets ``checkpoints/``, ``history.jsonl`` and ``bundle/``.
        config: The whole configuration.
        backbone: URI of a backbone bundle that the detector starts from.
        code_digest: Digest of the library's sources, kept in the bundle.
        resume: Whether to continue from the newest checkpoint in ``output``; without it training starts from step 0.
        cache: Folder for downloads; if None, the user's cache folder is used.
        writer: Name of the writer in the claim on ``output``; empty for a training without a claim.
    """

    kind: ClassVar[str] = "a training spec"

    task: Literal["detector", "backbone"] = "detector"
    dataset: str
    output: str
    config: Config
    backbone: str | None = None
    code_digest: str = ""
    resume: bool = True
    cache: Path | None = None
    writer: str = ""

    @property
    def step(self) -> Step:
        """The step of the catalogue that the training belongs to."""
        return STEPS[_STEPS[self.task][0]]

    @property
    def processes(self) -> int:
        """Number of data-parallel processes."""
        return int(self.config.value(self.step.processes_key))

    @property
    def memory_remedy(self) -> str:
        """What to lower after memory ran out."""
        return memory_remedy(self.config, self.task)

    def work(self) -> Work:
        """Return the training as the work of processes, which a launcher starts."""
        return Work(
            step=self.step.name,
            name=_STEPS[self.task][1],
            module=WORKER_MODULE,
            document=self.model_dump_json(),
            output=self.output,
            processes=self.processes,
            device_target=self.config.value(self.step.device_key),
            reads={"data set": self.dataset, "backbone": self.backbone or ""},
            memory_remedy=self.memory_remedy,
            has_checkpoints=True,
        )


def training_identity(spec: TrainingSpec, dataset_digest: str, backbone_digest: str, world: int) -> dict[str, Any]:
    """Return everything that the final weights depend on, by dotted key; a resumed run must not change it.

    Args:
        spec: The training run.
        dataset_digest: Content digest of the data set.
        backbone_digest: Digest of the backbone that training starts from; "" if there is no backbone.
        world: Number of data-parallel processes.
    """
    sections = ("data", "augment", "train") if spec.task == "detector" else ("pretrain",)
    values: dict[str, Any] = {"task": spec.task, "model": spec.config.model, "dataset": dataset_digest}
    for section in sections:
        for key, value in getattr(spec.config, section).model_dump(mode="json").items():
            if f"{section}.{key}" not in _WITHOUT_EFFECT:
                values[f"{section}.{key}"] = value
    values.pop(_ANCHORS, None)
    if spec.task == "backbone":
        for key in _OF_BACKBONES:
            values[key] = spec.config.value(key)
    else:
        values["backbone"] = backbone_digest
        values["train.processes"] = world
        anchors = other_anchors(spec.config)
        if anchors is not None:
            values[_ANCHORS] = [[list(pair) for pair in level] for level in anchors]
    return values


def refuse_changes(saved: dict[str, Any], now: dict[str, Any], uri: str) -> None:
    """Refuse to continue a training with settings that differ from its original settings.

    Raises:
        InputError: A setting has changed; the message names its key, both values and the remedy.
    """
    if (task := saved.get("task")) != now.get("task"):
        what = "the pretraining of a backbone" if task == "backbone" else "the training of a detector"
        raise InputError(f"{uri}: holds {what}; choose another output with --output")
    if is_shorter(saved, now):
        shorter = [key for key in changed_keys(saved, now) if now[key] < saved[key]]
        was = " and ".join(f"{key} = {saved[key]}" for key in shorter)
        raise InputError(
            f"{uri}: holds a training with {was}, now it is {' and '.join(str(now[key]) for key in shorter)}: "
            f"it cannot be made shorter; use {as_pairs(saved, shorter)}, or choose another output with --output"
        )
    # A length may grow, so a setting that may not change is named first.
    changed = sorted(changed_keys(saved, now), key=lambda key: key in LENGTHS)
    for key in changed:
        remedy = f"set it back{_typed(key, saved)} to resume" if key in saved else "leave it out to resume"
        raise InputError(
            f"{uri}: training was started with {key} = {saved.get(key)!r}, now it is {now.get(key)!r}; "
            f"{remedy}, or choose another output with --output"
        )


def _typed(key: str, saved: dict[str, Any]) -> str:
    """Return in parentheses the option that sets a key to its saved value; empty for a digest, which has no option."""
    if "." in key:
        return f" ({pair_option(key, saved[key])})"
    return f" (--model {saved[key]})" if key == "model" else ""
