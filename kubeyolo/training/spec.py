"""The JSON document that describes a training run; ``python -m kubeyolo.training.worker`` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from kubeyolo.catalogue import READING_KEYS, STEPS, Step
from kubeyolo.config.load import preset, preset_names
from kubeyolo.config.recipes import FINETUNE, finetune_recipe
from kubeyolo.config.schema import Config
from kubeyolo.config.training_schema import AugmentConfig, TrainConfig
from kubeyolo.errors import InputError
from kubeyolo.models.anchors import other_anchors
from kubeyolo.models.named_facts import model_facts, training_sizes
from kubeyolo.training.extension import (
    ANCHORS,
    GRAD_SCALER,
    KEEP,
    LENGTHS,
    LOSS_SCALE,
    MULTI_SCALE,
    PARTNER_WINDOW,
    PER_BATCH_SIZE,
    PRECISION,
    PROCESSES,
    SCALER_VALUE,
    SYNC_BN,
    VALIDATED,
    as_pairs,
    changed_keys,
    distribution_words,
    images_of_step,
    is_shorter,
    missing_values,
    value_of,
)
from kubeyolo.training.memory_advice import memory_remedy
from kubeyolo.training.schedules import idle_keys
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
    "train.weights",  # the identity has the digest of the weights instead of their location
    "pretrain.data",  # the identity has the digest of the images instead of their location
    "train.compile_cache",
    "train.log_interval",
    "train.ckpt_interval",
    "train.keep_checkpoints",
    "train.tensorboard",
    "train.need_profiler",
    "train.bind_core",
    "train.recompute",
}

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
        weights: URI of the bundle of a detector that the detector starts from, in place of a backbone.
        code_digest: Digest of the library's sources, kept in the bundle.
        resume: Whether to continue from the newest checkpoint in ``output``; without it training starts from step 0.
        cache: Folder for downloads; if None, the user's cache folder is used.
        writer: Name of the writer in the claim on ``output``; empty for a training without a claim.
        job: Name of the step whose job trains; if empty, it is that of the task.
    """

    kind: ClassVar[str] = "a training spec"

    task: Literal["detector", "backbone"] = "detector"
    dataset: str
    output: str
    config: Config
    backbone: str | None = None
    weights: str | None = None
    code_digest: str = ""
    resume: bool = True
    cache: Path | None = None
    writer: str = ""
    job: Literal["", "quantize"] = ""

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
            step=self.job or self.step.name,
            name=self.job or _STEPS[self.task][1],
            module=WORKER_MODULE,
            document=self.model_dump_json(),
            output=self.output,
            processes=self.processes,
            device_target=self.config.value(self.step.device_key),
            reads={"data set": self.dataset, "backbone": self.backbone or "", "weights": self.weights or ""},
            memory_remedy=self.memory_remedy,
            has_checkpoints=True,
            bind_core=self.task == "detector" and self.config.train.bind_core,
        )


def training_identity(
    spec: TrainingSpec, dataset_digest: str, backbone_digest: str, world: int, weights_digest: str = ""
) -> dict[str, Any]:
    """Return everything that the final weights depend on, by dotted key; a resumed run must not change it.

    Args:
        spec: The training run.
        dataset_digest: Content digest of the data set.
        backbone_digest: Digest of the backbone that training starts from; "" if there is no backbone.
        world: Number of data-parallel processes.
        weights_digest: Digest of the detector that training starts from; "" if it starts from none.
    """
    sections = ("data", "augment", "train") if spec.task == "detector" else ("pretrain",)
    values: dict[str, Any] = {"task": spec.task, "model": spec.config.model, "dataset": dataset_digest}
    for section in sections:
        for key, value in getattr(spec.config, section).model_dump(mode="json").items():
            if f"{section}.{key}" not in _WITHOUT_EFFECT:
                values[f"{section}.{key}"] = value
    values.pop(ANCHORS, None)
    if spec.task == "detector":
        values = _with_effect(values, spec.config)
    if spec.task == "backbone":
        for key in _OF_BACKBONES:
            values[key] = spec.config.value(key)
    else:
        values |= {key: spec.config.value(key) for key in VALIDATED if key.startswith("evaluate.")}
        values["backbone"] = backbone_digest
        values[PROCESSES] = world
        if world == 1:
            values.pop(SYNC_BN)
        if weights_digest:
            # An identity without this key is that of a training that starts from no detector.
            values["weights"] = weights_digest
        anchors = other_anchors(spec.config)
        if anchors is not None:
            values[ANCHORS] = [[list(pair) for pair in level] for level in anchors]
        if not depends_on_validations(spec.config):
            values = {key: value for key, value in values.items() if key not in VALIDATED} | {KEEP: "last"}
    return values


def _with_effect(values: dict[str, Any], config: Config) -> dict[str, Any]:
    """Return the values of a detector's training as what they mean for its weights.

    Trainings of earlier versions lack these keys; they had the schema's defaults. A value that changes nothing is left
    out, so that presets may have other values.
    """
    left_out = {*idle_keys(config.train), *_idle_augmentation(config.augment), "train.label_smooth", SCALER_VALUE}
    if not config.train.fake_quantize:
        left_out.add("train.fake_quantize")
    facts, divisor = model_facts(config.model), config.train.loss_scale
    if divisor in (0.0, facts.loss_divisor):
        left_out.add(LOSS_SCALE)
    if config.train.multi_scale:
        values = {**values, "train.sizes": list(training_sizes(facts, config.train))}
    else:
        left_out.update(MULTI_SCALE)
    kept = {key: value for key, value in values.items() if key not in left_out}
    return {**kept, **_precision(config.train), "train.label_smooth_factor": config.train.smoothing}


def _precision(train: TrainConfig) -> dict[str, Any]:
    """Return the precision and the scaling of the loss on the device of the training."""
    values: dict[str, Any] = {PRECISION: train.compute_type, GRAD_SCALER: train.scaling}
    return values if train.scaling == "none" else {**values, SCALER_VALUE: train.grad_scaler_value}


def _idle_augmentation(augment: AugmentConfig) -> list[str]:
    """Return keys without effect on the weights, because what they describe is off or always the case."""
    idle = [] if augment.mixup else ["augment.mixup_beta"]
    if not augment.mixup or augment.mosaic == 1:
        idle.append("augment.mixup_mosaics_only")
    if not augment.mixup and not augment.mosaic:
        idle.append(PARTNER_WINDOW)
    return idle if augment.mosaic else [*idle, "augment.mosaic_center"]


def depends_on_validations(config: Config) -> bool:
    """Tell whether validations while training decide which weights are published."""
    train = config.train
    return train.val_interval != 0 and (train.keep == "best" or train.patience > 0)


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
    if missing := missing_values(saved, now):
        was = " and ".join(f"{key} = {value!r}, now it is {now[key]!r}" for key, value in missing.items())
        raise InputError(
            f"{uri}: training was started by an earlier version of kubeyolo, which used {was}; "
            f"use {as_pairs(missing, list(missing))} to resume, or choose another output with --output"
        )
    changed = changed_keys(saved, now)
    if "weights" in changed and "model" not in changed:
        raise InputError(f"{uri}: {_other_start(saved, now)} to resume, or choose another output with --output")
    if PROCESSES in changed and images_of_step(now) is not None:
        raise InputError(f"{uri}: {_other_distribution(saved, now)}, or choose another output with --output")
    if recipe := _other_recipe(saved, now):
        key = next(key for key in changed if key in finetune_recipe(saved["model"])[1])
        values = f"{key} = {value_of(now, key)!r} in place of {value_of(saved, key)!r}"
        raise InputError(
            f"{uri}: training was started with the recipe {recipe}, now it has another recipe ({values}); "
            f"use --set recipe={recipe} to resume, or choose another output with --output"
        )
    # A length may grow, so a setting that may not change is named first.
    for key in sorted(changed, key=lambda key: (key in LENGTHS, key != "model", key not in saved)):
        raise InputError(
            f"{uri}: training was started with {key} = {value_of(saved, key)!r}, now it is {value_of(now, key)!r}; "
            f"set it back{_typed(key, saved)} to resume, or choose another output with --output"
        )


def _other_start(saved: dict[str, Any], now: dict[str, Any]) -> str:
    """Return how the detector that a training starts from has changed, and what to set."""
    if "weights" not in saved:
        return "training was started without train.weights; leave the weights out"
    if "weights" not in now:
        return "training was started from a detector, now it is not; set train.weights to this detector"
    return "training was started from another detector; set train.weights to the former detector"


def _other_distribution(saved: dict[str, Any], now: dict[str, Any]) -> str:
    """Return which images of a step have changed with the number of processes, and what to set."""
    images, processes = images_of_step(saved), now[PROCESSES]
    before = (
        f"training was started with {distribution_words(saved)}, now it has {distribution_words(now)}; the number of "
        f"processes (train.processes) may change if a step still has {images} images"
    )
    if images is not None and images % processes == 0:
        return f"{before}: use --set {PER_BATCH_SIZE}={images // processes} to resume with {processes} processes"
    return (
        f"{before}: use a number of processes that divides {images}, or {as_pairs(saved, [PROCESSES, PER_BATCH_SIZE])} "
        "to resume"
    )


def _other_recipe(saved: dict[str, Any], now: dict[str, Any]) -> str:
    """Return the former recipe if only the recipe has changed; otherwise empty.

    A single value of a recipe may also have been typed, so at least two values must differ.
    """
    model = saved.get("model", "")
    if now.get("model") != model or model not in preset_names():
        return ""
    scratch = preset(model)
    tuned = {**scratch, **finetune_recipe(model)[1]}
    changed = [key for key in changed_keys(saved, now) if key not in LENGTHS]
    if sum(tuned.get(key) != scratch.get(key) for key in changed) < 2:
        return ""
    for name, before, after in (("scratch", scratch, tuned), (FINETUNE, tuned, scratch)):
        # A key that one identity lacks has no effect there, whatever its value.
        if all(
            (key not in saved or saved[key] == before.get(key)) and (key not in now or now[key] == after.get(key))
            for key in changed
        ):
            return name
    return ""


def _typed(key: str, saved: dict[str, Any]) -> str:
    """Return in parentheses the option that sets a key to its saved value; empty for a digest, which has no option."""
    if "." in key:
        return f" ({as_pairs({key: value_of(saved, key)}, [key])})"
    return f" (--model {saved[key]})" if key == "model" else ""
