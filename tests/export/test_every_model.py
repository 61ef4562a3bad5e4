"""Every registered network as ONNX and MINDIR: the files compute what the network computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from kubeyolo.evaluation.decode import decode
from kubeyolo.evaluation.network import load_network
from kubeyolo.evaluation.runtimes import CellRuntime, MindirRuntime, OnnxRuntime
from kubeyolo.export.mindir import export_mindir
from kubeyolo.export.onnx import export_onnx
from kubeyolo.models.registry import model_facts, model_names
from tests.export.tiny_detector import manifest, weights

LARGE = 7_000_000  # parameters: to export a network takes several times as long as to run it


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(name, marks=[pytest.mark.large] if model_facts(name).parameters > LARGE else [])
        for name in model_names()
    ],
)
def test_exported_files_compute_what_the_network_computes(model: str, tmp_path: Path) -> None:
    facts = model_facts(model)
    size = (facts.strides[-1], 2 * facts.strides[-1])
    described = manifest(model=model, strides=facts.strides, anchors=facts.anchors, image_size=size)
    arrays, file = weights(model), tmp_path / "weights.safetensors"
    save_file(arrays, file)

    def build():
        return load_network(described, file)

    images = np.random.default_rng(0).random((2, 3, *size), np.float32)
    # Random weights grow what they pass on: without a smaller head exp() of the sides would overflow.
    for level, raw in enumerate(CellRuntime(build()).raw(images)):
        arrays[f"head.m.{level}.weight"] /= raw.std()
    save_file(arrays, file)
    wanted = CellRuntime(build()).raw(images)
    export_onnx(described, build, tmp_path / "model.onnx")
    onnx = OnnxRuntime(tmp_path / "model.onnx", described)
    export_mindir(described, build, tmp_path / "model.mindir", batch_size=2)
    mindir = MindirRuntime(tmp_path / "model.mindir", described)
    for exported in (onnx.raw(images), mindir.raw(images)):
        assert len(exported) == len(wanted) == len(facts.strides)
        for level, raw in zip(exported, wanted, strict=True):
            assert np.abs(raw[0] - raw[1]).max() > 1e-3 * np.abs(raw).max()
            np.testing.assert_allclose(level, raw, rtol=0, atol=1e-4 * np.abs(raw).max())
    decoded = decode(wanted, facts.anchors, facts.strides, facts.decode, facts.scale_xy)
    np.testing.assert_allclose(onnx.predictions(images), decoded, rtol=1e-3, atol=1e-3)
