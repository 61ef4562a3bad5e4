"""Every network against the raw outputs of the program it comes from."""

from __future__ import annotations

import hashlib
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from numpy.typing import NDArray

from kubeyolo.models.registry import build_model
from kubeyolo.weights.fit import load_arrays
from kubeyolo.weights.names import layers_of, layouts_of
from tests import golden

EPS_OF_PROGRAMS = {"yolov4-csp": 1e-4}


@pytest.mark.parametrize("case", golden.model_parameters())
def test_forward_golden(case: str) -> None:
    assert case, f"{golden.golden_folder()} holds no model case"
    model = golden.model_of(case)
    meta, expected = golden.read_json(case, "meta.json"), golden.read_arrays(case, "outputs.npz")
    # The program of one case adds 1e-4 to the variance where darknet, with the same cfg file, adds 1e-5.
    network = build_model(model, meta["nc"], bn_eps=EPS_OF_PROGRAMS.get(case))
    facts = network.facts
    assert facts.bn_eps == meta["bn_eps"]
    weights = golden.case_weights(case)
    assert sha256(weights) == meta["weights_sha256"]  # that the rule fills what it filled for the other program
    (layout,) = layouts_of(facts)
    load_arrays(network, weights, layout)
    del weights
    assert sum(parameter.size for parameter in network.trainable_params()) == meta["params"]
    # Some programs return the coarsest level first.
    levels = [meta["strides"].index(stride) for stride in facts.strides]
    assert [list(map(list, level)) for level in facts.anchors] == [meta["anchors_px"][level] for level in levels]
    assert list(facts.scale_xy) == meta.get("scale_x_y", list(facts.scale_xy))
    network.set_train(False)
    probes = watch(network, [int(layer) for layer in expected["probe_layer"]])
    raws = [raw.asnumpy() for raw in network(ms.Tensor(golden.case_image(case)))]
    assert len(raws) == len(meta["strides"])
    assert probes.keys() >= {int(layer) for layer in expected["probe_layer"]} & layers_of(facts, layout).keys()
    logistic = golden.is_after_logistic(meta)
    for level, raw in zip(levels, raws, strict=True):
        got, want = sigmoid(raw) if logistic else raw, expected[f"raw_{level}"]
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)
        print(f"{case} level {level}: largest difference {np.abs(got - want).max():.1e}")
    if logistic:
        heads = {layer for layer, place in layers_of(facts, layout).items() if place.startswith("head.")}
        probes = {layer: sigmoid(probe) if layer in heads else probe for layer, probe in probes.items()}
    check_probes(probes, expected)


def sha256(weights: dict[str, NDArray[np.float32]]) -> str:
    digest = hashlib.sha256()
    for name, array in weights.items():
        digest.update(name.encode() + array.tobytes())
    return digest.hexdigest()


def check_probes(probes: dict[int, NDArray[np.float32]], expected: dict[str, NDArray[Any]]) -> None:
    layers = [int(layer) for layer in expected["probe_layer"]]
    assert 2 * len(probes) > len(layers)
    for index, layer in enumerate(layers):
        if layer not in probes:
            continue  # it only joins, splits or enlarges what other layers give, and is no cell of ours
        output = probes[layer]
        assert list(output.shape) == expected["probe_shape"][index].tolist()
        numbers = [output.mean(dtype=np.float64), output.std(dtype=np.float64), np.abs(output).max()]
        wanted = [expected[f"probe_{name}"][index] for name in ("mean", "std", "absmax")]
        # A mean near zero is the rest of large numbers.
        np.testing.assert_allclose(numbers, wanted, rtol=1e-3, atol=1e-4 * wanted[1], err_msg=f"layer {layer}")
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
