"""Test-time augmentation: the views of an image, and the boxes found in them."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest

from kubeyolo.bundle import BundleManifest
from kubeyolo.config.schema import EvaluateConfig
from kubeyolo.errors import InputError
from kubeyolo.evaluation.augmentation import PADDING, VIEWS, padded_multiple
from kubeyolo.evaluation.predictor import Predictor
from kubeyolo.evaluation.runtimes import CellRuntime, Runtime
from kubeyolo.evaluation.split_evaluation import evaluate_split
from kubeyolo.models.named_facts import model_facts, model_names
from kubeyolo.models.registry import build_model
from kubeyolo.weights.fit import load_arrays
from kubeyolo.weights.names import layouts_of
from tests import golden
from tests.evaluation.rectangles import RectangleRuntime, RectangleSplit, dataset_manifest
from tests.export.tiny_detector import manifest

EVERY_BOX = -1.0


def bundle_manifest(model: str, size: tuple[int, int], classes: int = 1) -> BundleManifest:
    facts = model_facts(model)
    return BundleManifest(
        model=model,
        classes=tuple(f"class {number}" for number in range(classes)),
        category_ids=tuple(range(1, classes + 1)),
        image_size=size,
        strides=facts.strides,
        anchors=facts.anchors,
    )


def tta_cases() -> list[str]:
    return sorted(path.name for path in (golden.golden_folder() / "tta").glob("*") if path.is_dir())


@pytest.fixture
def interpreted() -> Any:
    """Run networks without compiling them: three shapes would be compiled for a single image."""
    mode = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    yield
    ms.set_context(mode=mode)


@pytest.mark.parametrize("case", golden.model_parameters(tta_cases(), "tta"))
def test_golden_views_and_boxes(case: str, interpreted: None) -> None:
    assert case, f"{golden.golden_folder()} holds no tta case"
    model, meta = golden.model_of(case), golden.read_json("tta", case, "meta.json")
    expected = golden.read_arrays("tta", case, "outputs.npz")
    facts, image = model_facts(model), golden.case_image(case)[:1]
    assert [view.scale for view in VIEWS] == meta["scales"]
    assert ["lr" if view.is_flipped else None for view in VIEWS] == meta["flips"]
    assert (padded_multiple(facts), PADDING) == (meta["pad_multiple"], meta["pad_value"])
    assert facts.clips_tails == (meta["kept"] != "all")
    views = [view.image(image, padded_multiple(facts)) for view in VIEWS]
    assert [list(view.shape) for view in views] == meta["scaled_shapes"]
    for number in (1, 2):
        # The other program rounds the places of pixels to float32, which moves its values by up to 1.07e-5.
        np.testing.assert_allclose(views[number], expected[f"input_{number}"], rtol=1e-5, atol=1e-5)
    network = build_model(model, 80)
    (layout,) = layouts_of(facts)
    load_arrays(network, golden.case_weights(case), layout)
    network.set_train(False)
    about = bundle_manifest(model, image.shape[2:], classes=80)
    outputs = Predictor(about, CellRuntime(network), batch_size=1, tta=True).outputs(image)
    boxes, wanted = outputs.boxes(0, EVERY_BOX, about, facts), expected["decoded"][0]
    assert boxes.shape == wanted.shape
    np.testing.assert_allclose(boxes[:, :4], wanted[:, :4], rtol=1e-3, atol=0.05)
    np.testing.assert_allclose(boxes[:, 4:], wanted[:, 4:], atol=1e-3)


class ZeroRuntime(Runtime):
    """A network whose raw outputs are zero: each box is its anchor in the middle of its cell."""

    def __init__(self, strides: tuple[int, ...]) -> None:
        self.strides = strides
        self.inputs: list[np.ndarray] = []

    def raw(self, images: np.ndarray) -> list[np.ndarray]:
        self.inputs.append(images)
        count, _, height, width = images.shape
        return [np.zeros((count, 3, height // stride, width // stride, 6), np.float32) for stride in self.strides]


def test_yolov5_leaves_out_the_coarsest_level_of_the_first_view_and_the_finest_of_the_last() -> None:
    about, facts = bundle_manifest("yolov5n-r7", (64, 96)), model_facts("yolov5n-r7")
    runtime = ZeroRuntime(facts.strides)
    image = np.zeros((1, 3, 64, 96), np.float32)
    image[..., :32] = 1.0  # the left third is white
    boxes = Predictor(about, runtime, batch_size=1, tta=True).outputs(image).boxes(0, conf_threshold=0.4, **both(about))
    # 64 x 96 is seen as it is, as 53 x 79 in 64 x 96, and as 42 x 64 in 64 x 96: .67 of 96 is 64.32, more than 64.
    assert [view.shape[2:] for view in runtime.inputs] == [(64, 96), (64, 96), (64, 96)]
    flipped, small = runtime.inputs[1][0, 0], runtime.inputs[2][0, 0]
    assert (flipped[:53, :50] == 0).all() and (flipped[:53, 55:79] == 1).all()
    assert (flipped[53:] == np.float32(0.447)).all() and (flipped[:, 79:] == np.float32(0.447)).all()
    assert (small[:42, :19] == 1).all() and (small[:42, 24:64] == 0).all() and (small[42:] == np.float32(0.447)).all()
    # Cells of a view: 8 x 12, 4 x 6 and 2 x 3, with three anchors each: 288, 72 and 18 boxes.
    first, second, third = np.split(boxes, [288 + 72, 288 + 72 + 378])
    assert len(third) == 72 + 18
    near = {"rtol": 1e-6, "atol": 1e-5}
    np.testing.assert_allclose(first[0], [4, 4, 10, 13, 0.5, 0.5], **near)
    np.testing.assert_allclose(first[-1], [88, 56, 59, 119, 0.5, 0.5], **near)
    np.testing.assert_allclose(second[0], [96 - 4 / 0.83, 4 / 0.83, 10 / 0.83, 13 / 0.83, 0.5, 0.5], **near)
    np.testing.assert_allclose(second[-1, :4], [96 - 80 / 0.83, 48 / 0.83, 373 / 0.83, 326 / 0.83], **near)
    np.testing.assert_allclose(third[0, :4], [8 / 0.67, 8 / 0.67, 30 / 0.67, 61 / 0.67], **near)
    np.testing.assert_allclose(third[-1, :4], [80 / 0.67, 48 / 0.67, 373 / 0.67, 326 / 0.67], **near)


def both(about: BundleManifest) -> dict[str, Any]:
    return {"manifest": about, "facts": model_facts(about.model)}


@pytest.mark.parametrize("model", ["yolov4", "yolov3-quant", "yolov4-csp"])
def test_darknet_models_keep_all_boxes_as_scaled_yolov4(model: str) -> None:
    about, facts = bundle_manifest(model, (64, 64)), model_facts(model)
    runtime = ZeroRuntime(facts.strides)
    outputs = Predictor(about, runtime, batch_size=1, tta=True).outputs(np.zeros((1, 3, 64, 64), np.float32))
    assert [view.shape[2:] for view in runtime.inputs] == [(64, 64), (128, 128), (128, 128)]
    assert len(outputs.boxes(0, 0.4, about, facts)) == 252 + 2 * 4 * 252


def test_only_yolov5_clips_tails() -> None:
    clipping = {name for name in model_names() if model_facts(name).clips_tails}
    assert clipping == {name for name in model_names() if name.startswith("yolov5")}
    assert padded_multiple(model_facts("yolov4-p7")) == 128


def evaluated(batch_size: int, **settings: Any) -> Any:
    predictor = Predictor(manifest(), RectangleRuntime(), batch_size=batch_size, tta=True)
    config = EvaluateConfig(tta=True, **settings)
    return evaluate_split(predictor, RectangleSplit(7), dataset_manifest(), config, progress=False)  # type: ignore[arg-type]


def test_the_boxes_of_all_views_meet_in_the_image() -> None:
    # Where the views were not moved back to the image, each object would have more than one box.
    result, detections = evaluated(4, iou_threshold=0.5)
    assert [row["image_id"] for row in detections] == RectangleSplit(7).index.image_id.tolist()
    assert result.numbers["AP50"] == pytest.approx(1)
    assert (result.tta, result.rect, result.nms) == (True, False, "greedy")
    assert result.manner() == " (test-time augmentation)"
    assert evaluated(3, iou_threshold=0.5)[1] == detections
    combined = evaluated(4, iou_threshold=0.5, rect=True)[0]
    assert combined.numbers["AP50"] == pytest.approx(1) and combined.manner().startswith(" (test-time augmentation, r")


def test_a_file_for_one_image_size_is_refused() -> None:
    runtime = RectangleRuntime()
    runtime.image_size = (96, 128)
    with pytest.raises(
        InputError, match="exported for 96 x 128; use the mindspore runtime, or leave --tta out"
    ) as refused:
        Predictor(manifest(), runtime, "onnx", tta=True)
    assert "evaluate.tta=false, for predict predict.tta=false" in str(refused.value)
