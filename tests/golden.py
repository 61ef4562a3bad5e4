"""The golden numbers: which cases a folder holds, and the rules that fill weights, images and raw predictions.

Which cases there are is read from the folder, never listed here: a folder with further cases of the same formats is
run as it is. What is not known fails.
"""

from __future__ import annotations

import json
import math
import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kubeyolo.models.named_facts import model_facts, model_names

# Another wiring of yolov4-csp, which is not in the registry.
SKIPPED = "scaledyolov4_csp_yaml"
# Folders that hold no network's outputs, but cases of a loss, a rule or a schedule.
KINDS = ("assign", "init", "iou", "letterbox", "loss_scaledyolov4", "loss_yolov5", "nms", "schedule", "tta")
LARGE = 100_000_000  # parameters: `make ci` does not run these networks
ROOT = Path(__file__).resolve().parent.parent


def golden_folder() -> Path:
    """Return the folder of golden numbers; it may not exist."""
    shared = Path(os.environ.get("KUBEYOLO_SHARED", ROOT.parent / "shared"))
    return Path(os.environ.get("KUBEYOLO_GOLDEN", shared / "golden"))


def is_absent() -> bool:
    """Tell whether there is no golden folder and nobody has given one."""
    return "KUBEYOLO_GOLDEN" not in os.environ and not golden_folder().is_dir()


def case_parameters(names: Sequence[str], *kinds: str) -> list[Any]:
    """Return the parameters of a test over cases; without the folder, one that skips.

    When there are no cases, but the folder holds some of other kinds, the test is skipped. A folder that holds none,
    or an empty folder of one of these kinds, gives one parameter, the empty name, on which a test must fail.

    Args:
        names: Names of the cases.
        kinds: Folders that hold such cases; none for those of networks.
    """
    if is_absent():
        return [pytest.param("", marks=pytest.mark.skip(reason="../shared is absent"), id="absent")]
    if names:
        return [pytest.param(name, id=name) for name in names]
    folder = golden_folder()
    others = [path for path in folder.glob("*/*") if path.parent.name not in kinds]
    if others and not any((folder / kind).is_dir() for kind in kinds):
        reason = f"the golden folder holds no {'/'.join(kinds) or 'such network'} case"
        return [pytest.param("", marks=pytest.mark.skip(reason=reason), id="none")]
    return [pytest.param("", id="no-cases")]


def model_cases() -> list[str]:
    """Return the names of all folders of a network's outputs, whether or not they are known and whole."""
    folders = [path.name for path in golden_folder().glob("*") if path.is_dir() and not path.name.startswith(".")]
    return sorted(name for name in folders if name not in (*KINDS, SKIPPED))


def model_parameters(names: Sequence[str] | None = None, *kinds: str) -> list[Any]:
    """Return :func:`case_parameters` of networks, all or some, with the large ones marked."""
    parameters = case_parameters(model_cases() if names is None else names, *kinds)
    return [
        pytest.param(*case.values, id=case.id, marks=pytest.mark.large)
        if (name := registered_name(str(case.values[0]))) and model_facts(name).parameters > LARGE
        else case
        for case in parameters
    ]


def registered_name(case: str) -> str:
    """Return the registered name of the network of a case, or an empty text for an unknown case."""
    if match := re.fullmatch(r"yolov5_v(5\.0|7)_([nsmlx])", case):
        name = f"yolov5{match[2]}" + ("-r7" if match[1] == "7" else "")
    elif match := re.fullmatch(r"scaledyolov4_(p\d)", case):
        name = f"yolov4-{match[1]}"
    elif match := re.fullmatch(r"darknet_(yolov[34].*)", case):
        name = match[1]
    else:
        name = case if case == "yolov4-csp" else ""
    return name if name in model_names() else ""


def model_of(case: str) -> str:
    """Return the registered name of the network of a case; an unknown case is an error."""
    name = registered_name(case)
    if not name:
        pytest.fail(f"unknown golden case {case!r}")
    return name


def array_files(folder: str) -> list[str]:
    """Return the names, without .npz, of the arrays in one folder."""
    return sorted(path.stem for path in (golden_folder() / folder).glob("*.npz"))


def read_json(*parts: str) -> Any:
    return json.loads(golden_folder().joinpath(*parts).read_text())


def read_arrays(*parts: str) -> dict[str, NDArray[Any]]:
    with np.load(golden_folder().joinpath(*parts)) as arrays:
        return dict(arrays)


def fill(name: str, shape: list[int], factor: float = 1.0) -> NDArray[np.float32]:
    """Return the values of one weight by the rule of the golden README."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "running_var" or (leaf == "weight" and len(shape) == 1):
        values = generator.uniform(0.8, 1.2, shape)
    elif leaf in ("bias", "running_mean"):
        values = generator.standard_normal(shape) * 0.1
    else:
        values = generator.standard_normal(shape) * math.sqrt(1.0 / np.prod(shape[1:]))
    return (values * factor).astype(np.float32)


def case_weights(case: str) -> dict[str, NDArray[np.float32]]:
    """Return all weights of a model case under their upstream names."""
    scales = read_json(case, "scales.json")
    return {name: fill(name, shape, scales.get(name, 1.0)) for name, shape in read_json(case, "names.json")}


def case_image(case: str) -> NDArray[np.float32]:
    """Return the input (N, 3, H, W) of a model case."""
    meta = read_json(case, "meta.json")
    rule = meta.get("input_rule", "PCG64(2024)")
    return _generator(rule).uniform(0, 1, meta["input_shape"]).astype(np.float32)


def loss_heads(rule: str, levels: Sequence[Sequence[int]], anchors: int, classes: int) -> list[NDArray[np.float32]]:
    """Return the raw predictions (N, anchor, ny, nx, 5 + classes) of each level that the loss cases start from.

    Args:
        rule: The words of the folder, with the seed and the number of images.
        levels: Rows and columns of each level.
        anchors: Anchors of a level.
        classes: Number of classes.
    """
    generator = _generator(rule)
    batch = re.search(r"shape \((\d+),", rule)
    assert batch, f"no number of images in {rule!r}"
    shapes = [(int(batch[1]), anchors, ny, nx, 5 + classes) for ny, nx in levels]
    return [generator.standard_normal(shape).astype(np.float32) for shape in shapes]


def is_after_logistic(meta: dict[str, Any]) -> bool:
    """Tell whether the raw outputs of a model case were stored after the sigmoid."""
    return "after its logistic" in meta["outputs"]["raw_i"].lower()


def anchors_in_pixels(grid: list[Any], strides: list[int]) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Turn anchors (level, anchor, 2) in cells into pixels."""
    return tuple(
        tuple((width * stride, height * stride) for width, height in level)
        for level, stride in zip(grid, strides, strict=True)
    )


def _generator(rule: str) -> np.random.Generator:
    seed = re.search(r"PCG64\((\d+)\)", rule)
    assert seed, f"no seed in {rule!r}"
    return np.random.Generator(np.random.PCG64(int(seed[1])))
