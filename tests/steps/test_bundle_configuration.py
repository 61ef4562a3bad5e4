"""The configuration of steps on a bundle: what it was trained with, under what the user says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.bundle import BundleManifest, read_bundle
from kubeyolo.cli.steps import _call_on
from kubeyolo.config.load import load_config
from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError
from kubeyolo.publishing import publish_bundle
from kubeyolo.steps.configure import bundle_config
from kubeyolo.storage.place import Place

DEMO = Path(__file__).parents[2] / "examples" / "demo.yaml"


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"x")
    config = load_config("yolov5s-r7", sets=["train.image_size=320", "train.seed=7", "augment.mosaic=0.25"])
    manifest = BundleManifest(
        model="yolov5s-r7",
        classes=("cat",),
        image_size=(320, 320),
        strides=(8, 16, 32),
        anchors=(((1.0, 2.0),),) * 3,
        config=config.model_dump(mode="json"),
    )
    return publish_bundle(Place.of(tmp_path / "bundle"), manifest, {weights.name: weights}).uri


def config_of(bundle: str, **settings: dict[str, Any]) -> Config:
    return bundle_config(read_bundle(Place.of(bundle)).manifest, {"settings": json.dumps(settings)}).config


def test_a_bundle_keeps_what_it_was_trained_with(bundle: str) -> None:
    config = config_of(bundle, evaluate={"min_ap": 0.5})
    assert (config.model, config.train.image_size, config.train.seed) == ("yolov5s-r7", 320, 7)
    assert (config.augment.mosaic, config.evaluate.min_ap) == (0.25, 0.5)


def test_sections_that_no_weights_depend_on_are_not_those_of_the_bundle(bundle: str) -> None:
    manifest = read_bundle(Place.of(bundle)).manifest
    judged = manifest.config | {"evaluate": {"min_ap": 0.9}, "quantize": {"max_drop": 0.25}}
    config = bundle_config(manifest.model_copy(update={"config": judged}), {}).config
    assert config.train.seed == 7
    assert (config.evaluate, config.quantize) == (load_config().evaluate, load_config().quantize)


def test_values_of_trained_sections_are_taken_over_those_of_the_bundle(bundle: str) -> None:
    config = config_of(bundle, train={"seed": 3}, augment={"fliplr": 0.0}, data={"workers": 0})
    assert (config.train.seed, config.train.image_size) == (3, 320)
    assert (config.augment.fliplr, config.augment.mosaic, config.data.workers) == (0.0, 0.25, 0)


def test_each_value_says_where_it_is_from(bundle: str) -> None:
    resolved = bundle_config(read_bundle(Place.of(bundle)).manifest, {"settings": "{train: {seed: 3}}"})
    assert resolved.origins["train.image_size"] == "the bundle"
    assert resolved.origins["train.seed"] == "the field settings"


def test_an_unknown_setting_is_refused(bundle: str) -> None:
    with pytest.raises(InputError, match="did you mean 'evaluate.min_ap'"):
        config_of(bundle, evaluate={"min_pa": 0.5})


def test_a_configuration_file_of_a_training_is_accepted(bundle: str) -> None:
    call, opened = _call_on(bundle, bundle, "", DEMO, ["data.workers=0", "train.device_target=CPU"])
    config = call.config
    assert opened.uri == bundle and call.output is None
    assert (config.model, config.train.seed) == ("yolov5s-r7", 7)
    assert config.train.max_epoch == load_config(file=DEMO).train.max_epoch
