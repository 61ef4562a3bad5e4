"""Every network of darknet as ONNX and MINDIR: the files compute what the network computes."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeyolo.models.named_facts import model_names
from tests.export.every_model import check_in_memory, models_of


@pytest.mark.parametrize("model", models_of("yolov3", "yolov4"))
def test_exported_files_compute_what_the_network_computes(model: str, tmp_path: Path) -> None:
    check_in_memory(model, tmp_path)


def test_no_model_is_left_out() -> None:
    models = [*models_of("yolov3", "yolov4"), *models_of("yolov5", "scaledyolov4")]
    assert sorted(str(model.values[0]) for model in models) == sorted(model_names())
