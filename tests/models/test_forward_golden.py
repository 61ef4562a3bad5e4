"""Every network against the raw outputs of the program it comes from."""

from __future__ import annotations

import re

import mindspore as ms
import numpy as np
import pytest

from kubeyolo.models.registry import build_model, model_names
from kubeyolo.weights import load_arrays
from kubeyolo.weights.names import yolov5_layers
from tests import golden

# Families whose networks are not in the registry yet.
NOT_YET_BUILT = re.compile(
    r"scaledyolov4_(p5|p6|p7|csp_yaml)|yolov4-csp|darknet_(yolov3|yolov4|yolov4-csp|yolov4-tiny)"
)
FOLDERS_OF_OTHER_TESTS = {
    "assign",
    "init",
    "iou",
    "letterbox",
    "loss_scaledyolov4",
    "loss_yolov5",
    "nms",
    "schedule",
    "tta",
}


def model_of(case: str) -> str:
    """Return the registered name of the network of a case; an unknown case is an error."""
    match = re.fullmatch(r"yolov5_v(5\.0|7)_([nsmlx])", case)
    name = "" if match is None else f"yolov5{match[2]}" + ("-r7" if match[1] == "7" else "")
    if name not in model_names():
        pytest.fail(f"unknown golden case {case!r}")
    return name


def parameters() -> list[object]:
    cases = [case for case in golden.model_cases() if NOT_YET_BUILT.fullmatch(case) is None]
    return golden.case_parameters(cases)


@pytest.mark.parametrize("case", parameters())
def test_forward_golden(case: str) -> None:
    assert case, f"{golden.golden_folder()} holds no model case"
    meta, expected = golden.read_json(case, "meta.json"), golden.read_arrays(case, "outputs.npz")
    network = build_model(model_of(case), meta["nc"])
    load_arrays(network, golden.case_weights(case), layout="yolov5")
    assert sum(parameter.size for parameter in network.trainable_params()) == meta["params"]
    assert [list(map(list, level)) for level in network.facts.anchors] == meta["anchors_px"]
    network.set_train(False)
    probes = watch(network, [int(layer) for layer in expected["probe_layer"]])
    raws = [raw.asnumpy() for raw in network(ms.Tensor(golden.case_image(case)))]
    assert len(raws) == len(meta["strides"])
    for level, raw in enumerate(raws):
        want = expected[f"raw_{level}"]
        assert raw.shape == want.shape
        np.testing.assert_allclose(raw, want, rtol=1e-3, atol=1e-3)
        assert np.abs(raw - want).max() < 3e-4
    for index, layer in enumerate(expected["probe_layer"]):
        output = probes[int(layer)]
        assert list(output.shape) == expected["probe_shape"][index].tolist()
        numbers = [output.mean(dtype=np.float64), output.std(dtype=np.float64), np.abs(output).max()]
        wanted = [expected[f"probe_{name}"][index] for name in ("mean", "std", "absmax")]
        np.testing.assert_allclose(numbers, wanted, rtol=1e-3)
        np.testing.assert_allclose(output.reshape(-1)[:8], expected["probe_first8"][index], rtol=1e-3, atol=1e-4)


def watch(network: ms.nn.Cell, layers: list[int]) -> dict[int, np.ndarray]:
    """Keep the outputs of upstream layers while the network runs."""
    outputs: dict[int, np.ndarray] = {}
    places = {place: layer for layer, place in yolov5_layers(network.facts).items() if layer in layers}
    for name, cell in network.cells_and_names():
        if name in places:
            layer = places[name]

            def keep(_cell: object, _inputs: object, output: ms.Tensor, layer: int = layer) -> None:
                outputs[layer] = output.asnumpy()

            cell.register_forward_hook(keep)
    return outputs


def test_every_folder_is_a_known_golden_case() -> None:
    if not golden.golden_folder().is_dir():
        pytest.skip("../shared is absent")
    folders = {path.name for path in golden.golden_folder().iterdir() if path.is_dir()} - FOLDERS_OF_OTHER_TESTS
    assert folders
    for case in sorted(folders):
        if NOT_YET_BUILT.fullmatch(case) is None:
            model_of(case)
