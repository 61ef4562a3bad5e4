"""The largest network of each family is trained for a step: MindSpore nests the calls of its gradients deepest."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeyolo.config.load import load_config
from kubeyolo.launch.local import launch_work
from kubeyolo.storage.place import Place
from kubeyolo.training.result import read_result
from kubeyolo.training.spec import TrainingSpec

SETS = ("train.image_size=128", "train.per_batch_size=2", "train.max_epoch=1", "data.workers=0", "train.val_interval=0")


@pytest.mark.large
@pytest.mark.parametrize("model", ["yolov5l-r7", "yolov5x-r7", "yolov4", "yolov4-p7"])
def test_the_training_step_of_a_large_network_compiles(model: str, small_dataset: str, tmp_path: Path) -> None:
    config = load_config(model, sets=SETS)
    launch_work(TrainingSpec(dataset=small_dataset, output=str(tmp_path), config=config).work())
    assert read_result(Place.of(tmp_path).store).steps > 0
