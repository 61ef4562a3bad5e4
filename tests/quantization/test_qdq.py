"""The int8 file of a trained network computes what its training has computed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file

from kubeyolo.errors import InputError
from kubeyolo.evaluation.runtimes import CellRuntime, OnnxRuntime
from kubeyolo.models.ranges import Ranges, read_ranges, split_ranges, write_ranges
from kubeyolo.quantization.qdq import quantize_trained
from tests.export.tiny_detector import images, manifest

EPS = 1e-3


@pytest.fixture(scope="module")
def trained(detector, tmp_path_factory) -> tuple[Path, Ranges, Any]:
    """Weights and ranges after a calibration, and the network that rounds as while training."""
    from mindspore import Tensor

    from kubeyolo.models.fake_quantization import fake_quantize

    network = detector.build()
    fake_quantize(network)
    network.set_train(True)
    for seed in (3, 4):
        network(Tensor(images(2, seed=seed)))
    network.set_train(False)
    folder = tmp_path_factory.mktemp("trained")
    weights, ranges = split_ranges({each.name: each.asnumpy() for each in network.get_parameters()})
    save_file(weights, folder / "weights.safetensors")
    write_ranges(folder / "ranges.json", ranges)
    return folder / "weights.safetensors", read_ranges(folder / "ranges.json"), network


@pytest.fixture(scope="module")
def written(detector, trained, tmp_path_factory) -> tuple[Path, Any]:
    path = tmp_path_factory.mktemp("qdq") / "model-int8.onnx"
    weights, ranges, _ = trained
    return path, quantize_trained(detector.onnx, path, ranges, weights, EPS)


def test_the_file_computes_what_the_network_computes_that_rounds_while_training(detector, trained, written) -> None:
    batch = (np.rint(images(2, seed=5) * 255) / 255).astype(np.float32)
    network = CellRuntime(trained[2]).raw(batch)
    int8 = OnnxRuntime(written[0], manifest()).raw(batch)
    real = OnnxRuntime(detector.onnx, manifest()).raw(batch)
    for fake, got, exact in zip(network, int8, real, strict=True):
        rounding = np.abs(fake - exact).mean()
        assert rounding > 1e-3 * np.abs(exact).mean()
        # What is left are values in the middle between two levels.
        assert np.abs(fake - got).mean() < 0.1 * rounding


def test_every_convolution_is_int8_and_every_bias_int32(written) -> None:
    path, facts = written
    assert (facts.convs, facts.quantized_convs, facts.calibration) == (60, 60, "trained ranges")
    assert facts.int8_bytes == path.stat().st_size and facts.size_ratio < 0.35
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
    assert kinds == {("uint8", "int8", "int32"): 60}
    assert {entry.key: entry.value for entry in model.metadata_props}["quantization"] == "int8 QDQ, trained ranges"


def test_scales_are_those_of_the_trained_ranges(trained, written) -> None:
    graph = onnx.load(str(written[0])).graph
    scales = {float(numpy_helper.to_array(each)) for each in graph.initializer if each.name.endswith("_output_scale")}
    expected = {float((np.float32(high) - np.float32(low)) / np.float32(255)) for low, high in trained[1].values()}
    # Besides them there are only the scale of sigmoids and of images.
    assert scales - expected == {float(np.float32(1) / np.float32(255))}
    assert expected <= scales


def test_other_weights_than_those_of_the_float_file_are_folded_into_the_int8_file(detector, trained, tmp_path) -> None:
    weights, ranges, _ = trained
    arrays = load_file(weights)
    name = "backbone.stem.bn.gamma"
    save_file({**arrays, name: 2 * arrays[name]}, tmp_path / "other.safetensors")
    quantize_trained(detector.onnx, tmp_path / "int8.onnx", ranges, tmp_path / "other.safetensors", EPS)
    quantize_trained(detector.onnx, tmp_path / "same.onnx", ranges, weights, EPS)
    found = []
    for path in (tmp_path / "same.onnx", tmp_path / "int8.onnx"):
        stored = {each.name: numpy_helper.to_array(each) for each in onnx.load(str(path)).graph.initializer}
        found.append(stored["backbone.stem.conv.folded.weight_scale"])
    np.testing.assert_allclose(found[1], 2 * found[0], rtol=1e-6)


def test_ranges_and_weights_of_another_network_are_refused(detector, trained, tmp_path) -> None:
    weights, ranges, _ = trained
    out = tmp_path / "int8.onnx"
    with pytest.raises(InputError, match=r"no value has the range backbone\.other\.after\.range.*export their network"):
        quantize_trained(detector.onnx, out, {**ranges, "backbone.other.after.range": (0, 1)}, weights, EPS)
    less = {name: each for name, each in ranges.items() if name != "neck.down3.after.range"}
    with pytest.raises(InputError, match=r"there is no range of neck\.down3\.after"):
        quantize_trained(detector.onnx, out, less, weights, EPS)
    save_file({"neck.a": np.zeros(1, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"reads 'backbone\.stem\.conv\.folded\.weight'"):
        quantize_trained(detector.onnx, out, ranges, tmp_path / "other.safetensors", EPS)
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "cannot be read as ranges"),
        ('{"a.range": [1, 2]}', "a.range is 1.0 to 2.0, must contain 0"),
        ("[1]", "cannot be read"),
    ],
)
def test_a_damaged_file_of_ranges_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "ranges.json").write_text(text)
    with pytest.raises(InputError, match=f"ranges.json: .*{problem}.*train the network again"):
        read_ranges(tmp_path / "ranges.json")
