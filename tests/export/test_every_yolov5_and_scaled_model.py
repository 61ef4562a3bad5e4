"""Every network of YOLOv5 and Scaled-YOLOv4 as ONNX and MINDIR: the files compute what the network computes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.export.every_model import check_in_memory, models_of


@pytest.mark.parametrize("model", models_of("yolov5", "scaledyolov4"))
def test_exported_files_compute_what_the_network_computes(model: str, tmp_path: Path) -> None:
    check_in_memory(model, tmp_path)
