"""The loss against the numbers of YOLOv5 and Scaled-YOLOv4: parts, total, objectness target, gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kubeyolo.losses.yolov5 import LossGains, YoloV5Loss, scaledyolov4_gains, yolov5_gains
from tests import golden
from tests.losses.gradients import LossAndGradients, padded, run

FOLDERS = ("loss_yolov5", "loss_scaledyolov4")


def cases() -> list[Any]:
    names = [f"{folder}/{name}" for folder in FOLDERS for name in golden.array_files(folder)]
    return golden.case_parameters(names, *FOLDERS)


def settings(folder: str, facts: dict[str, Any], levels: int) -> tuple[LossGains, float]:
    effective = facts["hyp_effective"]
    assert [effective[name] for name in ("cls_pw", "obj_pw", "fl_gamma")] == [1, 1, 0]
    if folder == "loss_yolov5":
        gains = yolov5_gains(levels, facts["nc"], facts["imgsz"])
        np.testing.assert_allclose([gains.box, gains.obj, gains.cls], [effective[k] for k in ("box", "obj", "cls")])
        return gains, 1e-7
    gains = scaledyolov4_gains(levels, facts["nc"])
    np.testing.assert_allclose(gains.cls * levels / 3, effective["cls"])
    return gains, 1e-16


@pytest.mark.parametrize("case", cases())
def test_loss_golden(case: str, mode: str) -> None:
    assert case, f"{golden.golden_folder()} holds no loss case"
    folder, variant = case.split("/")
    meta, arrays = golden.read_json(folder, "meta.json"), golden.read_arrays(folder, f"{variant}.npz")
    assert variant in meta["variants"], f"unknown golden case {case}"
    facts = meta["variants"][variant]
    shapes, strides, balance = (facts.get(key, meta.get(key)) for key in ("levels", "strides", "balance"))
    grid = facts["anchors_grid"]
    heads = golden.loss_heads(meta["head_rule"], shapes, len(grid[0]), facts["nc"])
    gains, eps = settings(folder, facts, len(shapes))
    assert gains.balance == tuple(balance)
    loss = YoloV5Loss(
        golden.anchors_in_pixels(grid, strides),
        tuple(strides),
        facts["nc"],
        gains,
        anchor_t=facts["hyp_effective"]["anchor_t"],
        label_smooth_factor=facts["hyp_effective"].get("label_smoothing", 0.0),
        eps=eps,
    )
    cell = LossAndGradients(loss, len(shapes))
    compared = 0
    for name, about in facts["sets"].items():
        if "cannot_run" in about:
            continue
        targets = arrays[f"{name}_targets"]
        (total, parts, target), gradients = run(cell, heads, padded(targets, max(64, len(targets))))
        compared += 1
        np.testing.assert_allclose(total, arrays[f"{name}_total"][0], rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(parts, arrays[f"{name}_parts"][:3], rtol=1e-5, err_msg=name)
        wanted = np.concatenate([arrays[f"{name}_tobj_{level}"].reshape(-1) for level in range(len(shapes))])
        np.testing.assert_allclose(target, wanted, rtol=0, atol=1e-5, err_msg=name)
        for level, gradient in enumerate(gradients):
            np.testing.assert_allclose(gradient, arrays[f"{name}_grad_{level}"], rtol=1e-4, atol=1e-6, err_msg=name)
    assert compared >= 1
