"""The int8 file of a trained network computes what its training has computed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file

from kubeyolo.bundle import BundleManifest
from kubeyolo.errors import InputError
from kubeyolo.evaluation.runtimes import OnnxRuntime
from kubeyolo.export.onnx import export_onnx
from kubeyolo.models.named_facts import model_facts
from kubeyolo.models.ranges import Ranges, read_ranges, split_ranges, write_ranges
from kubeyolo.quantization.int8 import QuantizationFacts
from kubeyolo.quantization.trained_ranges import quantize_trained
from tests.models.few_blocks import MODEL, few_blocks

EPS = 1e-3
SIDE = 64


@dataclass(frozen=True)
class Trained:
    """A network after a calibration: its files, and what it computes with its roundings for ``batch``."""

    manifest: BundleManifest
    onnx: Path
    weights: Path
    ranges: Ranges
    batch: np.ndarray
    raws: tuple[np.ndarray, ...]

    def quantized(self, path: Path, weights: Path | None = None, ranges: Ranges | None = None) -> QuantizationFacts:
        return quantize_trained(self.onnx, path, ranges or self.ranges, weights or self.weights, EPS)


def pictures(count: int, seed: int) -> np.ndarray:
    """Return (count, 3, H, W) in 0..1, multiples of 1/255."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 3, 8, 8))
    return (np.kron(coarse, np.ones((1, 1, 8, 8))) / 255).astype(np.float32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    from kubeyolo.runtime import configure_mindspore

    configure_mindspore("CPU")
    from mindspore import Tensor

    from kubeyolo.models.fake_quantization import fake_quantize

    folder = tmp_path_factory.mktemp("trained")
    facts = model_facts(MODEL)
    described = BundleManifest(
        model=MODEL, classes=("a", "b", "c"), image_size=(SIDE, SIDE), strides=facts.strides, anchors=facts.anchors
    )

    def float_network() -> Any:
        return few_blocks().set_train(False)

    export_onnx(described, float_network, folder / "model.onnx")
    network = few_blocks()
    fake_quantize(network)
    network.set_train(True)
    for seed in (3, 4):
        network(Tensor(pictures(2, seed)))
    network.set_train(False)
    batch = pictures(2, 5)
    raws = tuple(level.asnumpy() for level in network(Tensor(batch)))
    weights, ranges = split_ranges({each.name: each.asnumpy() for each in network.get_parameters()})
    save_file(weights, folder / "weights.safetensors")
    write_ranges(folder / "ranges.json", ranges)
    read = read_ranges(folder / "ranges.json")
    return Trained(described, folder / "model.onnx", folder / "weights.safetensors", read, batch, raws)


@pytest.fixture(scope="module")
def written(trained, tmp_path_factory) -> tuple[Path, QuantizationFacts]:
    path = tmp_path_factory.mktemp("qdq") / "model-int8.onnx"
    return path, trained.quantized(path)


def test_the_file_computes_what_the_network_computes_that_rounds_while_training(trained, written) -> None:
    int8 = OnnxRuntime(written[0], trained.manifest).raw(trained.batch)
    real = OnnxRuntime(trained.onnx, trained.manifest).raw(trained.batch)
    for fake, got, exact in zip(trained.raws, int8, real, strict=True):
        rounding = np.abs(fake - exact).mean()
        assert rounding > 1e-4 * np.abs(exact).mean()
        # What is left are values in the middle between two levels, which another order of additions rounds otherwise.
        assert np.abs(fake - got).mean() < 0.2 * rounding


def test_every_convolution_is_int8_and_every_bias_int32(written) -> None:
    path, facts = written
    assert (facts.convs, facts.quantized_convs, facts.calibration) == (8, 8, "trained ranges")
    assert facts.int8_bytes == path.stat().st_size
    model = onnx.load(str(path))
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    kinds: Counter[tuple[str, ...]] = Counter()
    for conv in (node for node in model.graph.node if node.op_type == "Conv"):
        value, weight, bias = (makers[name] for name in conv.input)
        kinds[tuple(arrays[node.input[2]].dtype.name for node in (value, weight, bias))] += 1
        scales = [arrays[node.input[1]] for node in (value, weight, bias)]
        assert scales[0].shape == () and scales[1].shape == scales[2].shape == (len(arrays[weight.input[0]]),)
        np.testing.assert_allclose(scales[2], scales[0] * scales[1], rtol=1e-6)
        assert np.abs(arrays[weight.input[0]].astype(int)).max(axis=(1, 2, 3)).tolist() == [127] * len(scales[1])
    assert kinds == {("uint8", "int8", "int32"): 8}
    assert {entry.key: entry.value for entry in model.metadata_props}["quantization"] == "int8 QDQ, trained ranges"


def test_scales_are_those_of_the_trained_ranges(trained, written) -> None:
    graph = onnx.load(str(written[0])).graph
    scales = {float(numpy_helper.to_array(each)) for each in graph.initializer if each.name.endswith("_output_scale")}
    expected = {float((np.float32(high) - np.float32(low)) / np.float32(255)) for low, high in trained.ranges.values()}
    # Besides them there are only the scale of sigmoids and of images.
    assert scales - expected == {float(np.float32(1) / np.float32(255))}
    assert expected <= scales


def test_other_weights_than_those_of_the_float_file_are_folded_into_the_int8_file(trained, tmp_path) -> None:
    arrays = load_file(trained.weights)
    name = "backbone.stem.bn.gamma"
    save_file({**arrays, name: 2 * arrays[name]}, tmp_path / "other.safetensors")
    trained.quantized(tmp_path / "same.onnx")
    trained.quantized(tmp_path / "other.onnx", weights=tmp_path / "other.safetensors")
    found = []
    for file in ("same.onnx", "other.onnx"):
        stored = {each.name: numpy_helper.to_array(each) for each in onnx.load(tmp_path / file).graph.initializer}
        found.append(stored["backbone.stem.conv.folded.weight_scale"])
    np.testing.assert_allclose(found[1], 2 * found[0], rtol=1e-6)


def test_ranges_and_weights_of_another_network_are_refused(trained, tmp_path) -> None:
    out, ranges = tmp_path / "int8.onnx", trained.ranges
    with pytest.raises(InputError, match=r"no value has the range backbone\.other\.after\.range.*export their network"):
        trained.quantized(out, ranges={**ranges, "backbone.other.after.range": (0, 1)})
    less = {name: each for name, each in ranges.items() if name != "backbone.down4.after.range"}
    with pytest.raises(InputError, match=r"there is no range of backbone\.down4\.after"):
        trained.quantized(out, ranges=less)
    save_file({"neck.a": np.zeros(1, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"reads 'backbone\.stem\.conv\.folded\.weight'"):
        trained.quantized(out, weights=tmp_path / "other.safetensors")
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not JSON"),
        ('{"a.range": [1, 2]}', "a.range is 1.0 to 2.0, must contain 0"),
        ("[1]", "cannot be read"),
    ],
)
def test_a_damaged_file_of_ranges_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "ranges.json").write_text(text)
    with pytest.raises(InputError, match=f"ranges.json: .*{problem}.*train the network again"):
        read_ranges(tmp_path / "ranges.json")
