"""The example of docs/deployment.md finds what kubeyolo finds."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kubeyolo.data.decode import decode_image
from kubeyolo.data.letterbox import letterbox
from kubeyolo.evaluation.predictor import Predictor
from kubeyolo.evaluation.runtimes import OnnxRuntime
from tests.evaluation.rectangles import detect
from tests.export.tiny_detector import ExportedDetector, exported_detector

PAGE = Path(__file__).parents[2] / "docs" / "deployment.md"


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> ExportedDetector:
    base = tmp_path_factory.getbasetemp()
    return exported_detector(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)


def write_photo(path: Path, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    blocks = rng.integers(0, 256, (9, 7, 3)).astype(np.uint8)
    cv2.imwrite(str(path), cv2.resize(blocks, size, interpolation=cv2.INTER_NEAREST))


# Into 128 x 96 pixels: padded by an odd number on the sides, and above and below; a large photograph; no padding.
@pytest.mark.parametrize("size", [(141, 203), (150, 100), (1500, 1000), (640, 480)])
def test_example_finds_the_boxes_of_kubeyolo(
    size: tuple[int, int],
    detector: ExportedDetector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_photo(tmp_path / "photo.jpg", size)
    (tmp_path / "model.onnx").write_bytes(detector.onnx.read_bytes())
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    example: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), example)

    image = decode_image((tmp_path / "photo.jpg").read_bytes())
    assert image is not None
    expected_input, place = letterbox(image, detector.manifest.image_size)
    boxed, ratios, corner = example["letterbox"](image)
    np.testing.assert_array_equal(boxed, expected_input)
    assert (*ratios, *corner) == (place.ratio_x, place.ratio_y, place.left, place.top)

    predictor = Predictor(detector.manifest, OnnxRuntime(detector.onnx, detector.manifest), "onnx", 1)
    [expected] = detect(predictor, [image], conf=0.25, iou=0.45)
    boxes, scores, labels = example["detect"](image)
    assert len(expected) > 5
    np.testing.assert_allclose(boxes, expected[:, :4], atol=1e-2)
    np.testing.assert_allclose(scores, expected[:, 4], atol=1e-5)
    np.testing.assert_array_equal(labels, expected[:, 5])
    assert len(capsys.readouterr().out.splitlines()) == len(expected)
