"""Label assignment against the rows of YOLOv5 and Scaled-YOLOv4, in their order."""

from __future__ import annotations

import re

import mindspore as ms
import numpy as np
import pytest

from kubeyolo.losses.assign import assign
from tests import golden
from tests.losses.gradients import padded


def variant_of(case: str) -> tuple[str, str]:
    """Return the loss case whose grids and anchors an assignment case has."""
    if case == "yolov5":
        return "loss_yolov5", "nc80_640"
    match = re.fullmatch(r"scaledyolov4_(p\d)", case)
    assert match, f"unknown golden case assign/{case}"
    return "loss_scaledyolov4", f"{match[1]}_nc3"


@pytest.mark.parametrize("case", golden.case_parameters(golden.array_files("assign"), "assign"))
def test_assign_golden(case: str) -> None:
    assert case, f"{golden.golden_folder()} holds no assignment case"
    folder, variant = variant_of(case)
    meta, arrays = golden.read_json(folder, "meta.json"), golden.read_arrays("assign", f"{case}.npz")
    facts = meta["variants"][variant]
    shapes, strides = (facts.get(key, meta.get(key)) for key in ("levels", "strides"))
    anchors = golden.anchors_in_pixels(facts["anchors_grid"], strides)
    sets = sorted(key.removesuffix("_targets") for key in arrays if key.endswith("_targets"))
    assert sets
    for name in sets:
        targets = arrays[f"{name}_targets"]
        labels = ms.Tensor(padded(targets, max(64, len(targets))))
        outputs = assign(labels, anchors, tuple(strides), tuple(map(tuple, shapes)), 4.0)
        mask, row, centre, size, anchor, classes = (output.asnumpy() for output in outputs)
        level_of = np.repeat(np.arange(len(shapes)), mask.size // len(shapes))
        for level, (ny, nx) in enumerate(shapes):
            rows = mask & (level_of == level)
            wanted = {key: arrays[f"{name}_L{level}_{key}"] for key in ("b", "a", "gj", "gi", "tcls", "tbox", "anch")}
            # Scaled-YOLOv4 stores the cell before it is kept inside of the grid.
            gj, gi = wanted["gj"].clip(0, ny - 1), wanted["gi"].clip(0, nx - 1)
            flat = ((wanted["b"] * len(anchors[0]) + wanted["a"]) * ny + gj) * nx + gi
            np.testing.assert_array_equal(row[rows], flat, err_msg=f"{name} level {level}")
            np.testing.assert_array_equal(classes[rows], wanted["tcls"])
            moved = np.stack((wanted["gi"] - gi, wanted["gj"] - gj), 1)
            np.testing.assert_allclose(centre[:, rows].T, wanted["tbox"][:, :2] + moved, rtol=0, atol=1e-6)
            np.testing.assert_allclose(size[:, rows].T, wanted["tbox"][:, 2:], rtol=0, atol=1e-6)
            np.testing.assert_array_equal(anchor[:, rows].T, wanted["anch"])
