"""IoU, GIoU, DIoU and CIoU of 200 pairs against YOLOv5 and Scaled-YOLOv4."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest

from kubeyolo.losses.iou import IouKind, box_iou, centred_iou
from tests import golden

# Programs that measure sides between corners rather than take them as given.
MEASURES_CORNERS = {"yolov5": False, "scaledyolov4": True}


@pytest.mark.parametrize("kind", ["IoU", "GIoU", "DIoU", "CIoU"])
@pytest.mark.parametrize("case", golden.case_parameters(golden.array_files("iou"), "iou"))
def test_iou_golden(case: str, kind: str) -> None:
    assert case, f"{golden.golden_folder()} holds no IoU case"
    assert case in MEASURES_CORNERS, f"unknown golden case iou/{case}"
    meta, arrays = golden.read_json("iou", "meta.json"), golden.read_arrays("iou", f"{case}.npz")
    eps, lower = meta["eps"][case], IOU_KINDS[kind]

    def from_centres(boxes: ms.Tensor, others: ms.Tensor) -> ms.Tensor:
        if MEASURES_CORNERS[case]:
            return corner_iou(corners_of(boxes), corners_of(others), lower, eps)
        return centred_iou(boxes[:2], boxes[2:], others[:2], others[2:], lower, eps)

    def total(boxes: ms.Tensor, others: ms.Tensor) -> ms.Tensor:
        return from_centres(boxes, others).sum()

    boxes, others = ms.Tensor(arrays["box1"].T.copy()), ms.Tensor(arrays["box2"].T.copy())
    values = from_centres(boxes, others).asnumpy()
    corners, corners2 = ms.Tensor(arrays["box1_xyxy"].T.copy()), ms.Tensor(arrays["box2_xyxy"].T.copy())
    values_xyxy = corner_iou(corners, corners2, lower, eps).asnumpy()
    gradients = ms.grad(total)(boxes, others).asnumpy().T
    assert np.isfinite(values).all() and np.isfinite(values_xyxy).all()
    finite = np.isfinite(arrays[kind])
    assert finite.mean() >= 0.98
    np.testing.assert_allclose(values[finite], arrays[kind][finite], rtol=0, atol=1e-5)
    finite = np.isfinite(arrays[f"{kind}_xyxy"])
    np.testing.assert_allclose(values_xyxy[finite], arrays[f"{kind}_xyxy"][finite], rtol=0, atol=1e-5)
    ties = [meta["kinds"].index(name) for name in ("identical", "touching", "degenerate")]
    smooth = ~np.isin(arrays["kind"], ties)
    np.testing.assert_allclose(gradients[smooth], arrays[f"grad_box1_{kind}"][smooth], rtol=1e-3, atol=1e-6)


def corner_iou(corners: ms.Tensor, others: ms.Tensor, kind: IouKind, eps: float) -> ms.Tensor:
    low, high, low2, high2 = corners[:2], corners[2:], others[:2], others[2:]
    return box_iou(low, high, high - low, low2, high2, high2 - low2, kind, eps)


def corners_of(boxes: ms.Tensor) -> ms.Tensor:
    half = boxes[2:] * 0.5
    return ms.ops.concat((boxes[:2] - half, boxes[:2] + half), 0)


IOU_KINDS: dict[str, IouKind] = {"IoU": "iou", "GIoU": "giou", "DIoU": "diou", "CIoU": "ciou"}
