"""The small training that is interrupted, continued and extended: 24 images of 64 x 64 pixels."""

from __future__ import annotations

from pathlib import Path

from kubeyolo.config.schema import Config
from kubeyolo.training.spec import TrainingSpec

CONFIG = {
    "data": {"workers": 2},
    "train": {
        "image_size": 64,
        "per_batch_size": 4,
        "max_epoch": 4,
        "log_interval": 4,
        "ckpt_interval": 3,
        "val_interval": 0,
    },
}


def spec_for(dataset: str, output: Path, model: str = "yolov5n-r7", **train: object) -> TrainingSpec:
    """Return the training of a data set, with settings of the section `train` in place of its own.

    Validations count every box, since this training does not learn to detect anything.
    """
    values = {"model": model, **CONFIG, "train": {**CONFIG["train"], **train}, "evaluate": {"conf_threshold": 0.0}}
    config = Config.model_validate(values)
    return TrainingSpec(dataset=dataset, output=str(output), config=config)
