"""Weights of every model: in, predicted with, out, and in again are the same arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from numpy.typing import NDArray

from kubeyolo.bundle import WEIGHTS, open_bundle
from kubeyolo.errors import InputError
from kubeyolo.evaluation.network import load_network
from kubeyolo.models.named_facts import model_facts, model_names
from kubeyolo.storage.place import Place
from kubeyolo.weights.darknet import write_darknet
from kubeyolo.weights.exporting import export_weights
from kubeyolo.weights.importing import import_weights
from kubeyolo.weights.names import layouts_of, to_layout
from kubeyolo.weights.network_parameters import network_parameters
from tests.weights.torch_writer import TorchFile, ordered

SMALL = 7_000_000
"""Parameters up to which `make ci` takes a model."""


def every_model() -> list[Any]:
    return [
        pytest.param(name, marks=[pytest.mark.large] if model_facts(name).parameters > SMALL else [])
        for name in model_names()
    ]


def published_file(path: Path, model: str) -> Path:
    """Write random weights as the program of a model publishes them, for 3 classes."""
    facts, generator = model_facts(model), np.random.default_rng(0)
    (layout,) = layouts_of(facts)
    network = network_parameters(model, 3)

    def values(shape: tuple[int, ...]) -> NDArray[np.float32]:
        # Larger than zero, as variances must be; small enough that no network overflows.
        return (generator.random(shape, dtype=np.float32) + 0.5) / np.float32(np.prod(shape[1:]) or 1)

    if layout == "darknet":
        arrays = {name: values(shape) for one in network.darknet_convolutions() for name, shape in one.arrays()}
        write_darknet(path.with_suffix(".weights"), network.darknet_convolutions(), arrays.__getitem__)
        return path.with_suffix(".weights")
    file = TorchFile()
    tree = {to_layout(name, facts, layout): file.tensor(values(shape)) for name, shape in network.shapes.items()}
    return file.write(path.with_suffix(".pt"), ordered(tree))


@pytest.mark.parametrize("model", every_model())
@pytest.mark.usefixtures("pynative")
def test_import_predict_export_import_keeps_every_array(model: str, tmp_path: Path) -> None:
    facts, file = model_facts(model), published_file(tmp_path / "published", model)
    (layout,) = layouts_of(facts)
    first = open_bundle(Place.of(import_weights(file, model, str(tmp_path / "first")).bundle))
    step = facts.strides[-1]
    network = load_network(first.manifest, first.path(WEIGHTS))
    ms.set_context(mode=ms.PYNATIVE_MODE)
    raws = network(ms.Tensor(np.full((1, 3, step, step), 0.5, np.float32)))
    assert all(np.isfinite(raw.asnumpy()).all() for raw in raws)
    del network
    exports = [("own.safetensors", "kubeyolo"), ("theirs.safetensors", layout)]
    exports += [("again.weights", "darknet")] if layout == "darknet" else []
    for number, (name, names) in enumerate(exports):
        export_weights(first.uri, tmp_path / name, names)
        again = import_weights(tmp_path / name, model, str(tmp_path / f"again{number}"))
        assert again.layout == names
        second = open_bundle(Place.of(again.bundle))
        assert second.manifest.files[WEIGHTS] == first.manifest.files[WEIGHTS]
        assert (second.manifest.anchors, second.manifest.bn_eps) == (facts.anchors, None)
        if name == "again.weights":
            assert (tmp_path / name).read_bytes() == file.read_bytes()
        # The largest take more than a gigabyte each.
        (tmp_path / name).unlink()
        second.path(WEIGHTS).unlink()
    file.unlink()
    first.path(WEIGHTS).unlink()


def test_anchors_that_a_weights_file_cannot_hold_are_printed_and_given_again(tmp_path: Path) -> None:
    model, own = "yolov4-tiny", [[9, 11, 14, 22, 25, 20], [34, 40, 52, 61, 80, 75]]
    file = published_file(tmp_path / "published", model)
    first = import_weights(file, model, str(tmp_path / "first"), anchors=own)
    anchors = open_bundle(Place.of(first.bundle)).manifest.anchors
    assert anchors == (((9.0, 11.0), (14.0, 22.0), (25.0, 20.0)), ((34.0, 40.0), (52.0, 61.0), (80.0, 75.0)))
    (note,) = export_weights(first.bundle, tmp_path / "again.weights").notes
    assert note.endswith("[[9,11, 14,22, 25,20], [34,40, 52,61, 80,75]]")
    assert (tmp_path / "again.weights").read_bytes() == file.read_bytes()
    assert export_weights(first.bundle, tmp_path / "again.safetensors").notes == ()
    again = import_weights(tmp_path / "again.safetensors", model, str(tmp_path / "again"))
    assert open_bundle(Place.of(again.bundle)).manifest.anchors == anchors
    plain = import_weights(file, model, str(tmp_path / "plain"))
    assert open_bundle(Place.of(plain.bundle)).manifest.anchors == model_facts(model).anchors
    assert export_weights(plain.bundle, tmp_path / "plain.weights").notes == ()
    with pytest.raises(InputError, match=r"--anchors = \[9, 11\]: these are 2 numbers; yolov4-tiny has 2 levels"):
        import_weights(file, model, str(tmp_path / "wrong"), anchors=[[9, 11]])
    with pytest.raises(InputError, match="--anchors needs a whole detector"):
        import_weights(file, model, str(tmp_path / "wrong"), backbone=True, anchors=own)
