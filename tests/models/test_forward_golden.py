"""Every network against the raw outputs of the program it comes from."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest
from numpy.typing import NDArray

from kubeyolo.models.registry import build_model
from kubeyolo.weights import load_arrays
from kubeyolo.weights.names import layers_of, layouts_of
from tests import golden

# Networks of more than 100 M parameters are not run by `make ci`.
LARGE = ("scaledyolov4_p6", "scaledyolov4_p7")
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


def parameters() -> list[Any]:
    cases = golden.case_parameters([case for case in golden.model_cases() if case != golden.SKIPPED])
    return [pytest.param(case.id, id=case.id, marks=pytest.mark.large) if case.id in LARGE else case for case in cases]


@pytest.mark.parametrize("case", parameters())
def test_forward_golden(case: str) -> None:
    assert case, f"{golden.golden_folder()} holds no model case"
    meta, expected = golden.read_json(case, "meta.json"), golden.read_arrays(case, "outputs.npz")
    # The program of this case adds 1e-4 to the variance where darknet, with the same cfg file, adds 1e-5.
    network = build_model(golden.model_of(case), meta["nc"], bn_eps=1e-4 if case == "yolov4-csp" else None)
    facts = network.facts
    assert facts.bn_eps == meta["bn_eps"]
    load_arrays(network, golden.case_weights(case), layout=layouts_of(facts)[0])
    assert sum(parameter.size for parameter in network.trainable_params()) == meta["params"]
    # Some programs return the coarsest level first.
    levels = [meta["strides"].index(stride) for stride in facts.strides]
    assert [list(map(list, level)) for level in facts.anchors] == [meta["anchors_px"][level] for level in levels]
    assert list(facts.scale_xy) == meta.get("scale_x_y", list(facts.scale_xy))
    network.set_train(False)
    probes = watch(network, [int(layer) for layer in expected["probe_layer"]])
    raws = [raw.asnumpy() for raw in network(ms.Tensor(golden.case_image(case)))]
    assert len(raws) == len(meta["strides"])
    logistic = "AFTER its logistic" in meta["outputs"]["raw_i"]
    for level, raw in zip(levels, raws, strict=True):
        got, want = sigmoid(raw) if logistic else raw, expected[f"raw_{level}"]
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)
        assert np.abs(got - want).max() < 3e-4
    if logistic:
        heads = {layer for layer, place in layers_of(facts, layouts_of(facts)[0]).items() if place.startswith("head.")}
        probes = {layer: sigmoid(probe) if layer in heads else probe for layer, probe in probes.items()}
    check_probes(probes, expected)


def check_probes(probes: dict[int, NDArray[np.float32]], expected: dict[str, NDArray[Any]]) -> None:
    layers = [int(layer) for layer in expected["probe_layer"]]
    # A route of a cfg file only joins or splits what other layers give; it is no cell of ours.
    assert len(probes) >= len(layers) - 1
    for index, layer in enumerate(layers):
        if layer not in probes:
            continue
        output = probes[layer]
        assert list(output.shape) == expected["probe_shape"][index].tolist()
        numbers = [output.mean(dtype=np.float64), output.std(dtype=np.float64), np.abs(output).max()]
        wanted = [expected[f"probe_{name}"][index] for name in ("mean", "std", "absmax")]
        np.testing.assert_allclose(numbers, wanted, rtol=1e-3, err_msg=f"layer {layer}")
        np.testing.assert_allclose(output.reshape(-1)[:8], expected["probe_first8"][index], rtol=1e-3, atol=1e-4)


def sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return (1 / (1 + np.exp(-x.astype(np.float64)))).astype(np.float32)


def watch(network: ms.nn.Cell, layers: list[int]) -> dict[int, NDArray[np.float32]]:
    """Keep the outputs of upstream layers while the network runs."""
    outputs: dict[int, NDArray[np.float32]] = {}
    cells = dict(network.cells_and_names())
    for layer, place in places_of(network).items():
        if layer in layers and place in cells:

            def keep(_cell: object, _inputs: object, output: ms.Tensor, layer: int = layer) -> None:
                outputs[layer] = output.asnumpy()

            cells[place].register_forward_hook(keep)
    return outputs


def places_of(network: ms.nn.Cell) -> dict[int, str]:
    """Return the cell of each upstream layer, those of a cfg file that have no weights included."""
    places = dict(layers_of(network.facts, layouts_of(network.facts)[0]))
    for layer, place in list(places.items()):
        parent, _, cell = place.rpartition(".")
        if cell == "cv2":
            places.setdefault(layer + 1, parent)  # the shortcut after a residual
        if cell == "fuse":
            places.setdefault(layer + 2, f"{parent}.pool")  # the pool after the route of a tiny block
    return places


def test_every_folder_is_a_known_golden_case() -> None:
    if not golden.golden_folder().is_dir():
        pytest.skip("../shared is absent")
    folders = {path.name for path in golden.golden_folder().iterdir() if path.is_dir()} - FOLDERS_OF_OTHER_TESTS
    assert folders
    for case in sorted(folders - {golden.SKIPPED}):
        golden.model_of(case)


@pytest.mark.parametrize("case", ["yolov5_v6_s", "darknet_yolov5s", "yolov3", "scaledyolov4_p9", "other"])
def test_unknown_golden_cases_fail(case: str) -> None:
    with pytest.raises(pytest.fail.Exception, match="unknown golden case"):
        golden.model_of(case)
