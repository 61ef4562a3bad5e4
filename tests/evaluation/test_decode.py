from __future__ import annotations

import numpy as np
import pytest

from kubeyolo.evaluation.decode import decode, decode_above, sigmoid
from kubeyolo.models.named_facts import model_facts
from tests import golden


@pytest.mark.parametrize("case", golden.case_parameters(golden.model_cases()))
def test_golden_decoded_boxes(case):
    assert case, f"{golden.golden_folder()} holds no model case"
    facts = model_facts(golden.model_of(case))
    meta, outputs = golden.read_json(case, "meta.json"), golden.read_arrays(case, "outputs.npz")
    raws = [outputs[f"raw_{level}"] for level in range(len(meta["strides"]))]
    if golden.is_after_logistic(meta):
        raws = [np.log(raw / (1 - raw)) for raw in raws]
    # Some programs return the coarsest level first.
    scales = [facts.scale_xy[facts.strides.index(stride)] for stride in meta["strides"]]
    expected = outputs["decoded"]
    got = decode(raws, meta["anchors_px"], meta["strides"], facts.decode, scales)[: len(expected)]
    np.testing.assert_allclose(got[..., :4], expected[..., :4], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(got[..., 4:], expected[..., 4:], atol=1e-6)


def test_zero_raw_is_the_middle_of_the_cell_and_the_anchor_itself():
    raw = np.zeros((1, 2, 3, 4, 6), np.float32)
    boxes = decode([raw], [[(10.0, 20.0), (30.0, 40.0)]], [8], "yolov5", [2.0])
    assert boxes.shape == (1, 24, 6)
    second_anchor_row_1_column_2 = boxes[0, 12 + 1 * 4 + 2]
    np.testing.assert_allclose(second_anchor_row_1_column_2, [20, 12, 30, 40, 0.5, 0.5])


def test_darknet_sizes_are_exponential_and_centres_scaled():
    raw = np.zeros((1, 1, 1, 1, 6), np.float32)
    raw[..., 0] = 100.0
    raw[..., 2] = np.log(3.0)
    box = decode([raw], [[(10.0, 20.0)]], [16], "darknet", [1.2])[0, 0]
    np.testing.assert_allclose(box[:4], [16 * 1.1, 8, 30, 20], rtol=1e-6)


def test_extreme_values_stay_quiet_and_ordered():
    with np.errstate(all="raise", under="ignore"):
        values = sigmoid(np.array([-1e4, -100, 0, 100, 1e4], np.float32))
    np.testing.assert_allclose(values, [0, 0, 0.5, 1, 1], atol=1e-30)


def test_raw_input_is_not_changed():
    raw = np.ones((1, 1, 2, 2, 6), np.float32)
    boxes = decode([raw], [[(1.0, 1.0)]], [8], "yolov5", [2.0])
    assert (raw == 1).all()
    share = 1 / (1 + np.exp(-1))
    centres = [8 * (2 * share - 0.5), 8 * (2 * share + 0.5)]
    expected = [[x, y, (2 * share) ** 2, (2 * share) ** 2, share, share] for y in centres for x in centres]
    np.testing.assert_allclose(boxes, [expected], rtol=1e-6)
    np.testing.assert_array_equal(decode([raw], [[(1.0, 1.0)]], [8], "yolov5", [2.0]), boxes)


def test_mismatched_levels_are_refused():
    raw = np.zeros((1, 1, 1, 1, 6), np.float32)
    with pytest.raises(ValueError, match="1 raw levels, 2 anchor levels"):
        decode([raw], [[(1.0, 1.0)], [(2.0, 2.0)]], [8], "yolov5", [2.0])
    with pytest.raises(ValueError, match="1 strides and 2 values of scale_xy"):
        decode([raw], [[(1.0, 1.0)]], [8], "darknet", [1.0, 1.1])
    with pytest.raises(ValueError, match="1 anchors a cell"):
        decode([raw], [[(1.0, 1.0), (2.0, 2.0)]], [8], "yolov5", [2.0])


@pytest.mark.parametrize("kind", ["yolov5", "darknet"])
def test_boxes_above_a_threshold_have_the_bits_of_all_boxes(kind):
    rng = np.random.default_rng(0)
    raws = [rng.normal(-1, 3, (3, 2, *shape, 9)).astype(np.float32) for shape in ((6, 10), (3, 5))]
    raws[0][1] = -9.0  # an image without a box at the finest level
    anchors, scales = [[(10.0, 13.0), (16.0, 30.0)], [(33.0, 23.0), (30.0, 61.0)]], [2.0, 1.1]
    every = decode(raws, anchors, [8, 16], kind, scales)
    chosen = decode_above(raws, anchors, [8, 16], kind, scales, 0.25)
    assert [len(image) for image in chosen] == [int((image[:, 4] > 0.25).sum()) for image in every]
    for image, boxes in zip(every, chosen, strict=True):
        assert boxes.tobytes() == image[image[:, 4] > 0.25].tobytes()
