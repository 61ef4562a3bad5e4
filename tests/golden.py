"""The golden numbers: which cases a folder holds, and the rule that fills weights and images."""

from __future__ import annotations

import json
import math
import os
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kubeyolo.models.registry import model_names

# Another wiring of yolov4-csp, which is not in the registry.
SKIPPED = "scaledyolov4_csp_yaml"
ROOT = Path(__file__).resolve().parent.parent


def golden_folder() -> Path:
    """Return the folder of golden numbers; it may not exist."""
    shared = Path(os.environ.get("KUBEYOLO_SHARED", ROOT.parent / "shared"))
    return Path(os.environ.get("KUBEYOLO_GOLDEN", shared / "golden"))


def case_parameters(names: list[str]) -> list[Any]:
    """Return the parameters of a test over cases; without the folder, one that skips.

    A folder that exists and has no cases gives one parameter, the empty name, on which a test must fail.
    """
    if not golden_folder().is_dir():
        return [pytest.param("", marks=pytest.mark.skip(reason="../shared is absent"), id="absent")]
    return [pytest.param(name, id=name) for name in names] or [pytest.param("", id="no-cases")]


def model_cases() -> list[str]:
    """Return the names of all folders with a network's outputs."""
    return sorted(path.parent.name for path in golden_folder().glob("*/outputs.npz"))


def model_of(case: str) -> str:
    """Return the registered name of the network of a case; an unknown case is an error."""
    if match := re.fullmatch(r"yolov5_v(5\.0|7)_([nsmlx])", case):
        name = f"yolov5{match[2]}" + ("-r7" if match[1] == "7" else "")
    elif match := re.fullmatch(r"scaledyolov4_(p\d)", case):
        name = f"yolov4-{match[1]}"
    elif match := re.fullmatch(r"darknet_(yolov[34].*)", case):
        name = match[1]
    else:
        name = case if case == "yolov4-csp" else ""
    if name not in model_names():
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
    shape = read_json(case, "meta.json")["input_shape"]
    return np.random.Generator(np.random.PCG64(2024)).uniform(0, 1, shape).astype(np.float32)


def loss_heads(levels: list[list[int]], anchors: int, classes: int, batch: int = 3) -> list[NDArray[np.float32]]:
    """Return the raw predictions (N, anchor, ny, nx, 5 + classes) of each level that the loss cases start from."""
    generator = np.random.Generator(np.random.PCG64(7))
    return [generator.standard_normal((batch, anchors, ny, nx, 5 + classes)).astype(np.float32) for ny, nx in levels]


def anchors_in_pixels(grid: list[Any], strides: list[int]) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Turn anchors (level, anchor, 2) in cells into pixels."""
    return tuple(
        tuple((width * stride, height * stride) for width, height in level)
        for level, stride in zip(grid, strides, strict=True)
    )
