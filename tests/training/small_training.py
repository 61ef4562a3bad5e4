"""The small training that is interrupted, continued and extended: 24 images of 64 x 64 pixels."""

from __future__ import annotations

from pathlib import Path

from kubeyolo.config.schema import Config
from kubeyolo.training.spec import TrainingSpec

CONFIG = {
    "data": {"workers": 2},
    "train": {"image_size": 64, "per_batch_size": 4, "max_epoch": 4, "log_interval": 4, "ckpt_interval": 3},
}


def spec_for(dataset: str, output: Path, model: str = "yolov5n-r7", **train: object) -> TrainingSpec:
    """Return the training of a data set, with settings of the section `train` in place of its own."""
    config = Config.model_validate({"model": model, **CONFIG, "train": {**CONFIG["train"], **train}})
    return TrainingSpec(dataset=dataset, output=str(output), config=config)
