"""Each network learns eight photographs by heart with its own loss; `make accept` runs these long tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kubeyolo.config.load import load_config
from kubeyolo.data.shards import write_dataset
from kubeyolo.launch.local import launch_work
from kubeyolo.storage.place import Place
from kubeyolo.training.spec import TrainingSpec
from tests.accept.overfit import COMMON, MODELS, write_eight_images
from tests.steps.called import evaluate

ASKED = os.environ.get("MODEL", "").split()


@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("model", ASKED or MODELS)
def test_a_network_learns_eight_images_by_heart(model: str, shared: Path, tmp_path: Path) -> None:
    source = write_eight_images(shared / "data" / "coco_cc", tmp_path / "eight")
    dataset = write_dataset(source, Place.of(tmp_path / "store")).uri
    config = load_config(model, None, [f"{key}={value}" for key, value in (COMMON | MODELS[model]).items()])
    output = tmp_path / "training"
    launch_work(TrainingSpec(dataset=dataset, output=str(output), config=config).work())
    found = evaluate(str(output / "bundle"), dataset, str(tmp_path / "evaluate"), config).result.numbers
    assert found["AP50"] is not None and found["AP50"] >= 0.95, found
