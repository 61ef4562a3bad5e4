"""What a training starts from is chosen and pinned once: in configure, on the command line and in the step alike."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from kubeyolo.bundle import WEIGHTS, Bundle, BundleManifest, read_bundle
from kubeyolo.catalogue import DETECTOR_RETRAINING, DETECTOR_TRAINING
from kubeyolo.cli.app import main
from kubeyolo.config.load import load_resolved
from kubeyolo.config.schema import Config
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.data.shards import write_dataset
from kubeyolo.errors import InputError
from kubeyolo.models.named_facts import model_facts
from kubeyolo.pointers import ModelPointer, latest_model, write_model_pointer
from kubeyolo.publishing import publish_bundle
from kubeyolo.report.model_card import model_card
from kubeyolo.steps import facade, starting_weights
from kubeyolo.steps.call import StepCall
from kubeyolo.steps.configure import configure
from kubeyolo.steps.configured_run import ConfiguredRun
from kubeyolo.steps.given_bundle import given_bundle
from kubeyolo.steps.outputs import training_output
from kubeyolo.steps.start import retraining_start
from kubeyolo.storage.place import Place
from kubeyolo.training.result import TrainingResult
from kubeyolo.training.spec import TrainingSpec
from tests.weights.arrays_of_yolov5n import upstream_arrays
from tests.weights.torch_writer import TorchFile, ordered

MODEL, CLASSES = "yolov5n-r7", ("disc", "ring")
RECIPE = "recipe finetune of the YOLOv5 family"
OTHER_ANCHORS = tuple(tuple((w + 1.0, h) for w, h in level) for level in model_facts(MODEL).anchors)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_sample_dataset(tmp_path_factory.mktemp("data") / "shapes", train=2, val=1, image_size=(64, 64))


def bundle_at(folder: Path, content: str = "weights", model: str = MODEL, file: str = WEIGHTS, **more: Any) -> Bundle:
    """Publish a bundle whose weights are a text: nothing here reads them."""
    facts = model_facts(model)
    values = {"classes": CLASSES, "image_size": (64, 64), "strides": facts.strides, "anchors": facts.anchors, **more}
    path = folder.with_suffix(".part")
    path.write_text(content)
    return publish_bundle(Place.of(folder), BundleManifest(model=model, **values), {file: path})


def torch_file(path: Path, **changed: np.ndarray) -> Path:
    file = TorchFile()
    # Statistics are no normal numbers: a variance is positive.
    arrays = {name: abs(array) if "running_var" in name else array for name, array in upstream_arrays().items()}
    return file.write(path, ordered({name: file.tensor(array) for name, array in (arrays | changed).items()}))


def train_on(data: Path, store: Path, **form: str) -> ConfiguredRun:
    return configure(DETECTOR_TRAINING, {"data": str(data), "store": str(store), **form})


def nested(**settings: Mapping[str, Any]) -> dict[str, str]:
    return {"settings": json.dumps(settings)}


def test_weights_are_pinned_and_pretraining_is_off(data: Path, tmp_path: Path) -> None:
    bundle, store = bundle_at(tmp_path / "old"), tmp_path / "store"
    run = train_on(data, store, weights=bundle.uri)
    assert run.settings["train"].config["train"]["weights"] == run.facts["weights"] == bundle.reference
    assert run.settings["pretrain_backbone"].config["pretrain"]["enabled"] is False
    assert run.resolved.origins["pretrain.enabled"] == "train.weights"
    assert (
        sum(f"starts from the detector {bundle.uri} with the {RECIPE}; no backbone" in line for line in run.notes) == 1
    )
    # A pointer is the bundle that it names; the place of the bundle is no part of the name of the run.
    pointer = Place.of(tmp_path / "current.json")
    write_model_pointer(pointer, ModelPointer(bundle=bundle.uri))
    pointed = train_on(data, store, weights=pointer.uri)
    assert pointed.settings == run.settings and pointed.name == run.name
    shutil.copytree(tmp_path / "old", tmp_path / "copy")
    assert train_on(data, store, weights=str(tmp_path / "copy")).name == run.name
    others = [train_on(data, store), train_on(data, store, weights=bundle_at(tmp_path / "new", "other").uri)]
    assert len({run.name, *(each.name for each in others)}) == 3


def test_a_recipe_lies_between_the_preset_and_the_values_of_the_user(data: Path, tmp_path: Path) -> None:
    bundle = bundle_at(tmp_path / "old").uri
    run = train_on(data, tmp_path / "store", weights=bundle, lr="0.02", **nested(augment={"scale": 0.1}))
    train, augment, origins = run.config.train, run.config.augment, run.resolved.origins
    assert (train.lr, train.lr_final, train.momentum, train.warmup_epochs) == (0.02, 0.12, 0.843, 2.0)
    assert (train.warmup_momentum, train.warmup_bias_lr, train.weight_decay) == (0.5, 0.05, 0.00036)
    assert (augment.scale, augment.translate, augment.mixup) == (0.1, 0.245, 0.243)
    assert (train.box_gain, train.cls_gain, train.anchor_t) == (0.05, 0.5, 4.0)
    assert origins["train.lr_final"] == RECIPE and origins["train.lr"] == "the field lr"
    assert {row.key: row.origin for row in run.view().changed}["augment.mixup"] == RECIPE
    scratch = train_on(data, tmp_path / "store", weights=bundle, **nested(recipe="scratch"))  # type: ignore[arg-type]
    assert (scratch.config.train.lr, scratch.config.augment.mixup) == (0.01, 0.0)
    without = train_on(data, tmp_path / "store", **nested(recipe="finetune"))  # type: ignore[arg-type]
    assert (without.config.train.lr, without.config.pretrain.enabled) == (0.0032, True)


@pytest.mark.parametrize(
    ("model", "values"),
    [
        ("yolov4-p5", {"augment.scale": 0.8, "augment.mixup": 0.2}),
        ("yolov4-csp", {"augment.scale": 0.8, "augment.mixup": 0.2}),
        ("yolov4", {"train.lr": 0.0001}),
        # Its preset, a quantization-aware training, is the recipe.
        ("yolov3-quant", {}),
    ],
)
def test_recipes_of_the_other_families(model: str, values: dict[str, float], data: Path, tmp_path: Path) -> None:
    bundle = bundle_at(tmp_path / "old", model=model)
    run = train_on(data, tmp_path / "store", model=model, weights=bundle.uri)
    found = {key for key, origin in run.resolved.origins.items() if origin.startswith("recipe finetune of the ")}
    assert {key: run.config.value(key) for key in found} == values


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"model": "yolov5s"}, "is a detector of model yolov5s, but yolov5n-r7 is trained; choose the model yolov5s"),
        ({"kind": "backbone"}, "is a backbone of yolov5n-r7, not a detector; start from it with --backbone"),
        ({"file": "model.onnx"}, "has no file weights.safetensors, so no training can start from it"),
    ],
)
def test_bundles_that_cannot_be_started_from_are_refused_in_configure(
    made: dict[str, Any], message: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        train_on(data, tmp_path / "store", weights=bundle_at(tmp_path / "old", **made).uri)


def test_files_that_cannot_be_started_from_are_refused_in_configure(data: Path, tmp_path: Path) -> None:
    path = torch_file(tmp_path / "yolov5n.pt")
    with pytest.raises(InputError, match="holds the weights of yolov5n-r7, not of yolov5s; give --model yolov5n-r7"):
        train_on(data, tmp_path / "store", model="yolov5s", weights=str(path))
    path.write_text("epochs: 3\n")
    with pytest.raises(InputError, match=str(path)):
        train_on(data, tmp_path / "store", weights=str(path))
    for gone in ("yolov5s.pt", "bundles/old"):
        with pytest.raises(InputError, match=f"train.weights = .*{gone}: there is no bundle, .*downloads no weights"):
            train_on(data, tmp_path / "store", weights=str(tmp_path / gone))
    with pytest.raises(InputError, match="train.weights = .*gone.json: this file does not exist$"):
        train_on(data, tmp_path / "store", weights=str(tmp_path / "gone.json"))


def test_the_bundle_of_a_training_is_suggested_for_its_output(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    bundle = bundle_at(output / "bundle")
    with pytest.raises(InputError, match=f"train.weights = .*output: .*give its bundle: {bundle.uri}$"):
        train_on(data, tmp_path / "store", weights=str(output))
    with pytest.raises(InputError, match=r"output: .*give its bundle: "):
        given_bundle(Place.of(output))
    with pytest.raises(InputError, match=r"last: there is no bundle.json"):
        given_bundle(Place.of(output / "last"))
    result = TrainingResult(identity={}, code_digest="", steps=1, bundle=bundle.uri, seconds=1.0, resumed_at=[])
    (output / "training.json").write_text(result.model_dump_json())
    with pytest.raises(InputError, match=f"the last weights of this training are .*give that bundle: {bundle.uri}$"):
        given_bundle(Place.of(output / "last"))
    assert given_bundle(bundle.place).uri == bundle.uri


def test_anchors_are_those_of_the_weights_unless_the_user_sets_them(data: Path, tmp_path: Path) -> None:
    bundle, store = bundle_at(tmp_path / "old", anchors=OTHER_ANCHORS).uri, tmp_path / "store"
    run = train_on(data, store, weights=bundle)
    assert run.resolved.origins["train.anchors"] == "the weights"
    levels = run.config.train.anchors
    assert [tuple(zip(level[::2], level[1::2], strict=True)) for level in levels] == list(OTHER_ANCHORS)
    assert any(note.startswith("train.anchors is that of the weights: ") for note in run.notes)
    anchors = [[side + 2 for pair in level for side in pair] for level in OTHER_ANCHORS]
    own = train_on(data, store, weights=bundle, **nested(train={"anchors": anchors}))
    assert own.resolved.origins["train.anchors"] == "the field settings"
    (warning,) = (note for note in own.notes if note.startswith("warning: the weights were trained with"))
    assert "11,13" in warning and "13,15" in warning


def test_frozen_fresh_weights_are_warned_of(data: Path, tmp_path: Path) -> None:
    settings = nested(train={"freeze": "backbone"}, pretrain={"enabled": False})
    words = "keeps fresh, untrained weights"
    assert any(words in note for note in train_on(data, tmp_path / "store", **settings).notes)
    bundle = bundle_at(tmp_path / "old").uri
    assert not any(words in note for note in train_on(data, tmp_path / "store", weights=bundle, **settings).notes)


class Retraining:
    def __init__(self, data: Path, folder: Path) -> None:
        self.folder, self.store = folder, Place.of(folder / "store")
        (folder / "pointer.json").write_text(json.dumps({"data": str(data)}))

    def look(self, **form: str) -> ConfiguredRun:
        pointer = str(self.folder / "pointer.json")
        return configure(DETECTOR_RETRAINING, {"pointer": pointer, "store": self.store.uri, **form})

    def make_current(self, **made: Any) -> Bundle:
        bundle = bundle_at(self.folder / "current", **made)
        write_model_pointer(latest_model(self.store, MODEL), ModelPointer(bundle=bundle.uri))
        return bundle


@pytest.fixture
def retraining(data: Path, tmp_path: Path) -> Retraining:
    return Retraining(data, tmp_path)


def start_of(run: ConfiguredRun) -> tuple[str, bool]:
    """Return the weights that the step train receives, and whether a backbone is pretrained."""
    return run.settings["train"].config["train"]["weights"], run.config.pretrain.enabled


def test_a_retraining_starts_from_the_current_model_once_there_is_one(retraining: Retraining) -> None:
    other = bundle_at(retraining.folder / "other", "other")
    assert start_of(retraining.look()) == ("", True)
    assert start_of(retraining.look(weights=other.uri)) == (other.reference, False)
    first = retraining.look(start_from="current")
    assert start_of(first) == ("", True)
    assert any("there is no current model at" in note and "a pretrained backbone" in note for note in first.notes)

    current = retraining.make_current()
    for form in ({}, {"start_from": "current"}, nested(pretrain={"enabled": True})):
        run = retraining.look(**form)
        assert start_of(run) == (current.reference, False)
        assert (run.config.train.lr, run.resolved.origins["train.weights"]) == (0.0032, "the current model")
    assert any("pretrain.enabled = true is not used" in note for note in run.notes)
    run = retraining.look(weights=other.uri)
    assert start_of(run) == (current.reference, False)
    assert any("train.weights = " in note and "is not used, since there is a current" in note for note in run.notes)
    assert start_of(retraining.look(weights=other.uri, start_from="weights")) == (other.reference, False)
    assert start_of(retraining.look(start_from="backbone")) == ("", True)
    fresh = retraining.look(start_from="fresh")
    assert start_of(fresh) == ("", False) and fresh.config.train.lr == 0.01
    assert fresh.settings["promote"].current == current.reference


@pytest.mark.parametrize(
    ("made", "message"),
    [({"model": "yolov5s"}, "is a detector of model yolov5s"), ({"file": "model.onnx"}, "has no file weights.safe")],
)
def test_a_current_model_that_does_not_fit_is_used_only_on_demand(
    made: dict[str, Any], message: str, retraining: Retraining
) -> None:
    retraining.make_current(**made)
    run = retraining.look()
    assert start_of(run) == ("", True)
    assert any("does not start from the current model: " in note and message in note for note in run.notes)
    with pytest.raises(InputError, match=f"retrain.start_from = current: .*{message}"):
        retraining.look(start_from="current")


def test_the_choice_needs_no_store(tmp_path: Path) -> None:
    resolved = load_resolved(MODEL, None, ["train.weights=x"])
    latest = Place.of(tmp_path / "latest.json")
    assert retraining_start(resolved, None, latest).resolved == resolved


def test_the_step_imports_a_file_once_and_names_its_output_after_the_content(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Place.of(tmp_path / "store")
    dataset = write_dataset(data, store)
    specs: list[TrainingSpec] = []

    def look(spec: TrainingSpec, *rest: Any) -> None:
        specs.append(spec)
        raise InterruptedError

    monkeypatch.setattr(facade.train_step, "train", look)

    def call(weights: Path) -> TrainingSpec:
        config = load_resolved(MODEL, None, [f"train.weights={weights}"]).config
        with pytest.raises(InterruptedError):
            facade.train(StepCall(store=store, config=config, code="c"), dataset, facade.HERE)
        return specs[-1]

    path = torch_file(tmp_path / "yolov5n.pt")
    first = call(path)
    assert first.weights is not None and first.backbone is None
    bundle = read_bundle(Place.of(first.weights))
    assert bundle.uri.startswith((store / "weights").uri) and bundle.manifest.model == MODEL
    imported = bundle.manifest.config["imported"]
    assert imported["file"] == "yolov5n.pt" and imported["sha256"][:12] in bundle.uri
    head = upstream_arrays()["model.24.m.0.bias"]
    np.testing.assert_array_equal(load_file(bundle.path(WEIGHTS))["head.m.0.bias"], head)
    assert f"imported {Place.of(path).uri} (torch)" in capsys.readouterr().out
    # The same content under another name is imported already, and is the same training.
    with monkeypatch.context() as patch:
        patch.setattr(starting_weights, "import_weights", None)
        other = call(Path(shutil.copy(path, tmp_path / "best.pt")))
    assert (other.weights, other.output) == (first.weights, first.output)
    changed = call(torch_file(tmp_path / "yolov5n.pt", **{"model.24.m.0.bias": head + 1}))
    assert changed.weights != first.weights and changed.output != first.output
    # Origin and licence go on into the bundles that are trained from it, and onto their cards.
    record = {"started_from": {"bundle": bundle.uri, "classes": {"taken": ["a"], "new": []}, "imported": imported}}
    card = model_card({"model": MODEL, "classes": ["a"], "config": record}, {})
    assert "AGPL-3.0" in card and imported["sha256"] in card and "1 of 1: a" in card


def test_outputs_are_named_after_the_weights() -> None:
    store, config = Place.of("/tmp/store"), Config()
    names = {training_output(store, config, "d", None, "c", weights).name for weights in ("", "1", "2")}
    assert len(names) == 3


def test_a_backbone_and_a_detector_on_one_command_line_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "d", "--backbone", "b", "--weights", "w", "--store", str(tmp_path)])
    assert ended.value.code == 2
    assert "--backbone b, and train.weights = w: " in capsys.readouterr().err
