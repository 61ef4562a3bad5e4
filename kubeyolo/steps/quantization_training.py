"""The quantization-aware training that the step quantize starts for a bundle with float weights.

It is an ordinary training with ``train.fake_quantize``, stored among the trainings of the store. Its settings are those
of the training that made the bundle, without mosaic and mixup, and with the schedule of the section ``quantize``: some
epochs at rate 0, in which only ranges change, then a cosine to 0.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from pydantic import ValidationError

from kubeyolo.bundle import Bundle
from kubeyolo.config.load import allowed_values
from kubeyolo.config.schema import AUTO, NONE, Config, QuantizeConfig
from kubeyolo.errors import InputError, problem_of
from kubeyolo.launch.launcher import Launcher
from kubeyolo.models.ranges import check_quantization

_WITH_JOB = "quantize"
"""The step whose job trains."""

_ALWAYS = {"fake_quantize": True, "precision": "float32", "recompute": False}
"""Settings of every such training."""

_NO_MINDSPORE = "quantize.method = qat trains the network, and the image of quantize does not have MindSpore"
_REMEDY = (
    "give the training a job: set launcher to volcano, and steps.quantize in its cluster settings to "
    "{job: true, image: <the image of train>}; or use quantize.method=ptq"
)
_RATE = 0.1
"""The peak rate as a share of that of the float training, if ``quantize.lr`` is not set."""


def quantization_config(bundle: Bundle, config: Config) -> Config:
    """Return the configuration of the quantization-aware training of a bundle.

    Args:
        bundle: A bundle with trained float weights.
        config: The configuration of the step; its sections ``quantize`` and ``evaluate``, and the seed, are used.

    Raises:
        InputError: The network cannot be trained with quantization, or its images are not square.
    """
    manifest, settings = bundle.manifest, config.quantize
    height, width = manifest.image_size
    if height != width:
        raise InputError(
            f"{bundle.uri}: quantize.method = qat needs square images, and this network takes {height} x {width} "
            "(height x width); use quantize.method=ptq"
        )
    kept, _ = allowed_values({name: manifest.config.get(name, {}) for name in ("data", "augment", "train")})
    before = Config.model_validate({"model": manifest.model, **kept}).train
    train: dict[str, Any] = {
        "weights": bundle.reference,
        "anchors": [[side for pair in level for side in pair] for level in manifest.anchors],
        **_ALWAYS,
        "freeze": [],
        "seed": config.train.seed,
        "device_target": settings.device_target,
        "processes": settings.processes,
        "image_size": height,
        "multi_scale": False,
        "max_epoch": settings.max_epoch,
        "lr": settings.lr or before.lr * _RATE,
        "lr_scheduler": "cosine_annealing",
        "t_max": settings.max_epoch,
        "eta_min": 0.0,
        "warmup": "zero",
        "warmup_epochs": settings.calibration_epochs,
        "warmup_steps": 0,
        "sync_bn": False,
        "patience": 0,
    }
    augment = {**kept.get("augment", {}), "mosaic": 0.0, "mixup": 0.0, "copy_paste": 0.0}
    values = {"model": manifest.model, **kept, "train": {**kept.get("train", {}), **train}, "augment": augment}
    values |= {"pretrain": {"enabled": False}, "evaluate": config.evaluate.model_dump(mode="json")}
    try:
        made = Config.model_validate(values)
    except ValidationError as error:
        wrong = problem_of(error)
        raise InputError(f"{bundle.uri}: {wrong.key} = {wrong.value!r}: {wrong.reason}") from error
    check_quantization(made, has_weights=True)
    return made


def check_quantize(config: Config, launcher: Launcher, is_remote: bool) -> None:
    """Refuse a quantization that a run cannot do, before anything is trained.

    Args:
        config: The configuration of the run.
        launcher: Starts the processes of the run.
        is_remote: Whether steps without a job run in pods, in images of their own.

    Raises:
        InputError: The model cannot be trained with quantization, or the training would run in an image without
            MindSpore.
    """
    if config.quantize.method != "qat":
        return
    check_settings(config.quantize)
    if config.train.fake_quantize:
        return
    size = config.export.input_size
    if size is not None and size[0] != size[1]:
        raise InputError(
            f"export.image_size = {config.export.image_size}: quantize.method = qat needs square images; "
            "give one side, or use quantize.method=ptq"
        )
    check_quantization(config.model_copy(update={"train": config.train.model_copy(update=_ALWAYS)}), has_weights=True)
    if is_remote and not launcher.has_job(_WITH_JOB):
        raise InputError(f"{_NO_MINDSPORE}; {_REMEDY}")


def check_settings(settings: QuantizeConfig) -> None:
    """Refuse settings that quantization-aware training cannot follow.

    Raises:
        InputError: The file would be for another runtime, layers would stay float, or no epoch would train.
    """
    if settings.runtime != "onnxruntime":
        raise InputError(
            f"quantize.runtime = {settings.runtime}: quantize.method = qat rounds values as the file for onnxruntime "
            "does; leave quantize.runtime out, or use quantize.method=ptq"
        )
    if settings.float_layers not in ((), (AUTO,), (NONE,)):
        raise InputError(
            f"quantize.float_layers = {','.join(settings.float_layers)}: quantize.method = qat trains all layers with "
            "roundings; leave quantize.float_layers out, or use quantize.method=ptq"
        )
    if settings.calibration_epochs >= settings.max_epoch:
        raise InputError(
            f"quantize.calibration_epochs = {settings.calibration_epochs:g}: of quantize.max_epoch = "
            f"{settings.max_epoch} epochs none would train; give fewer epochs for the calibration"
        )


def check_mindspore(launcher: Launcher) -> None:
    """Refuse to train where MindSpore is not installed.

    Raises:
        InputError: The training would run here.
    """
    if not launcher.has_job(_WITH_JOB) and find_spec("mindspore") is None:
        raise InputError(f"{_NO_MINDSPORE}; {_REMEDY}")
