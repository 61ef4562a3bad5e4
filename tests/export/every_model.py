"""What is checked of every registered network as ONNX and MINDIR, model by model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from kubeyolo.evaluation.decode import decode
from kubeyolo.evaluation.network import MindirRuntime, load_network
from kubeyolo.evaluation.runtimes import CellRuntime, OnnxRuntime
from kubeyolo.export.mindspore_export import export_cell
from kubeyolo.export.onnx import export_onnx
from kubeyolo.models.named_facts import model_facts, model_names
from tests.alone import run_alone
from tests.export.tiny_detector import manifest, weights

SMALL = 10_000_000
"""Parameters up to which a network is exported beside others: MindSpore keeps what it has compiled."""
LIMIT = 20e9
"""Bytes that the export of any network may take."""
CODE = """
import sys
from pathlib import Path
from tests.alone import peak_memory
from tests.export.every_model import check_exports
check_exports(sys.argv[1], Path(sys.argv[2]))
print(peak_memory())
"""


def models_of(*families: str) -> list[Any]:
    """Return the models whose family begins with one of these names; `make ci` takes the smallest of each family."""
    smallest: dict[str, str] = {}
    for name in sorted(model_names(), key=lambda name: model_facts(name).parameters):
        smallest.setdefault(model_facts(name).family, name)
    return [
        pytest.param(name, marks=[] if name in smallest.values() else [pytest.mark.large])
        for name in model_names()
        if model_facts(name).family.startswith(families)
    ]


def check_in_memory(model: str, folder: Path) -> None:
    """Check the files of a model, and of a larger one what that takes of memory."""
    if model_facts(model).parameters <= SMALL:
        check_exports(model, folder)
        return
    peak = int(run_alone(CODE, model, folder))
    print(f"{model}: {peak / 1e9:.1f} GB")
    assert peak <= LIMIT


def check_exports(model: str, folder: Path) -> None:
    """Write a network with random weights in both formats, and run them; nothing is left of it."""
    facts = model_facts(model)
    size = (facts.strides[-1], 2 * facts.strides[-1])
    described = manifest(model=model, strides=facts.strides, anchors=facts.anchors, image_size=size)
    arrays, file = weights(model), folder / "weights.safetensors"
    save_file(arrays, file)

    def build():
        return load_network(described, file)

    images = np.random.default_rng(0).random((2, 3, *size), np.float32)
    # Random weights grow what they pass on: without a smaller head exp() of the sides would overflow.
    for level, raw in enumerate(run(build(), images)):
        arrays[f"head.m.{level}.weight"] /= raw.std()
    save_file(arrays, file)
    arrays.clear()
    wanted = run(build(), images)
    onnx_file, mindir_file = folder / "model.onnx", folder / "model.mindir"
    export_onnx(described, build, onnx_file)
    onnx = OnnxRuntime(onnx_file, described)
    check_raws(onnx.raw(images), wanted)
    decoded = decode(wanted, facts.anchors, facts.strides, facts.decode, facts.scale_xy)
    np.testing.assert_allclose(onnx.predictions(images), decoded, rtol=1e-3, atol=1e-3)
    onnx_file.unlink()
    export_cell(build(), (2, 3, *described.image_size), mindir_file, "MINDIR")
    file.unlink()
    check_raws(MindirRuntime(mindir_file).raw(images), wanted)
    mindir_file.unlink()


def run(network: Any, images: np.ndarray) -> list[np.ndarray]:
    """Run a network operator by operator: to compile it would take longer than all else."""
    import mindspore as ms

    ms.set_context(mode=ms.PYNATIVE_MODE)
    raws = CellRuntime(network).raw(images)
    ms.set_context(mode=ms.GRAPH_MODE)
    return raws


def check_raws(exported: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    assert len(exported) == len(wanted)
    for level, raw in zip(exported, wanted, strict=True):
        # Another image must give another output.
        assert np.abs(raw[0] - raw[1]).max() > 1e-3 * np.abs(raw).max()
        np.testing.assert_allclose(level, raw, rtol=0, atol=1e-4 * np.abs(raw).max())
