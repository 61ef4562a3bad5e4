"""A bundle with weights that are infinite or NaN is refused wherever they are loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kubeyolo.bundle import WEIGHTS, BundleManifest, open_bundle, read_bundle
from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError
from kubeyolo.evaluation.predictor import load_predictor
from kubeyolo.models.named_facts import model_facts
from kubeyolo.publishing import publish_bundle
from kubeyolo.steps.export import _export
from kubeyolo.storage.place import Place
from kubeyolo.training.detector import _build_engine
from kubeyolo.training.spec import TrainingSpec
from kubeyolo.training.start import Start
from kubeyolo.weights.exporting import export_weights
from kubeyolo.weights.network_parameters import network_parameters
from kubeyolo.weights.safetensors_file import write_safetensors

MODEL = "yolov5n-r7"
CONFIG = Config(model=MODEL)


def published(folder: Path, kind: str, bad: dict[str, list[float]]) -> str:
    """Publish weights of ones; the first values of some arrays are given."""
    facts, network = model_facts(MODEL), network_parameters(MODEL, 2)
    arrays = {name: np.ones(shape, np.float32) for name, shape in network.shapes.items()}
    if kind == "backbone":
        arrays = {name: array for name, array in arrays.items() if name.startswith("backbone.")}
    for number, values in enumerate(bad.values()):
        name = list(arrays)[number * 7 + 1]
        arrays[name].flat[: len(values)] = values
    write_safetensors(folder / WEIGHTS, arrays.items(), {})
    manifest = BundleManifest(
        kind=kind,
        model=MODEL,
        classes=("a", "b"),
        image_size=(64, 64),
        strides=facts.strides,
        anchors=facts.anchors,
    )
    return publish_bundle(Place.of(folder / kind), manifest, {WEIGHTS: folder / WEIGHTS}).uri


BAD = {"first": [float("nan"), float("inf"), 1.0], "second": [-float("inf")]}
WORDS = (
    r"detector: its weights cannot be used: 1 of the 32 values of 'backbone\.down2\.bn\.gamma' are infinite or NaN, "
    r"and 1 more array has such values; train"
)


def test_a_detector_is_refused_by_evaluation_and_by_exports(tmp_path: Path) -> None:
    uri = published(tmp_path, "detector", BAD)
    assert read_bundle(Place.of(uri)).manifest.model == MODEL
    bundle = open_bundle(Place.of(uri))
    with pytest.raises(InputError, match=WORDS) as caught:
        load_predictor(bundle, "mindspore")
    assert str(caught.value).startswith(uri)
    with pytest.raises(InputError, match=WORDS) as caught:
        _export(bundle, bundle.manifest, CONFIG, tmp_path)
    assert str(caught.value).startswith(uri)
    with pytest.raises(InputError, match=WORDS):
        export_weights(uri, tmp_path / "w.safetensors")
    assert not list(tmp_path.glob("w.*"))


@pytest.mark.usefixtures("pynative")
def test_a_backbone_is_refused_by_a_training(tmp_path: Path) -> None:
    spec, facts = TrainingSpec(dataset="d", output="o", config=CONFIG), model_facts(MODEL)
    bundle = open_bundle(Place.of(published(tmp_path, "backbone", {"first": [float("nan")]})))
    with pytest.raises(InputError, match=r"backbone: its weights cannot be used: 1 of the \d+ values of 'backbone\."):
        _build_engine(spec, facts, ("a", "b"), 5, Start(backbone=bundle), {}, print)


def test_finite_weights_are_written(tmp_path: Path) -> None:
    uri = published(tmp_path, "detector", {"first": [3e38, -3e38]})
    assert export_weights(uri, tmp_path / "w.safetensors").arrays == len(network_parameters(MODEL, 2).shapes)
