"""A training starts from a detector: rows of classes of the same name are kept, the others are fresh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from kubeyolo.bundle import WEIGHTS, BundleManifest, open_bundle
from kubeyolo.config.schema import Config
from kubeyolo.data.dataset import open_dataset
from kubeyolo.errors import InputError
from kubeyolo.models.named_facts import model_facts
from kubeyolo.steps import facade
from kubeyolo.steps.call import StepCall
from kubeyolo.storage.place import Place
from kubeyolo.training.extension import changed_keys
from kubeyolo.training.result import read_result
from kubeyolo.training.spec import TrainingSpec, training_identity
from kubeyolo.training.start import ClassRows, Start, starting_arrays, weights_digest
from tests.training.detectors import detector_bundle, manifest_of
from tests.training.small_training import spec_for

OLD, NEW = ("cat", "dog", "bird", "fish"), ("dog", "fox", "cat ", "hen", "owl")


@pytest.mark.parametrize("model", ["yolov5n-r7", "yolov4", "yolov3-quant", "yolov4-tiny", "yolov4-csp", "yolov4-p5"])
def test_rows_of_equal_classes_are_kept_and_the_others_are_fresh(model: str) -> None:
    facts, rng = model_facts(model), np.random.default_rng(0)
    anchors = facts.anchors_per_level

    def head(classes: int) -> dict[str, np.ndarray]:
        outputs = anchors * (5 + classes)
        return {
            name: rng.normal(size=(outputs, *shape)).astype(np.float32)
            for name, shape in (("head.m.0.weight", (6, 1, 1)), ("head.m.0.bias", ()))
        }

    shared = {"neck.out.conv.weight": np.ones((2, 2), np.float32)}
    fresh, old = head(len(NEW)) | {name: 0 * array for name, array in shared.items()}, head(len(OLD)) | shared
    started = starting_arrays(fresh, old, manifest_of(model, OLD), NEW)
    assert started.keys() == old.keys()
    np.testing.assert_array_equal(started["neck.out.conv.weight"], shared["neck.out.conv.weight"])
    for name in ("head.m.0.weight", "head.m.0.bias"):
        made, drawn = (each[name].reshape(anchors, 5 + len(NEW), -1) for each in (started, fresh))
        source = old[name].reshape(anchors, 5 + len(OLD), -1)
        np.testing.assert_array_equal(made[:, :5], source[:, :5])
        for number, row in enumerate((1, None, 0, None, None)):
            kept = drawn[:, 5 + number] if row is None else source[:, 5 + row]
            np.testing.assert_array_equal(made[:, 5 + number], kept, err_msg=f"{name} {NEW[number]}")
    # The same classes in another order are another order of the rows; the same classes are the same arrays.
    turned = starting_arrays(old, old, manifest_of(model, OLD), OLD[::-1])["head.m.0.bias"].reshape(anchors, -1)
    np.testing.assert_array_equal(turned[:, 5:], old["head.m.0.bias"].reshape(anchors, -1)[:, :4:-1])
    same = starting_arrays(fresh, old, manifest_of(model, OLD), OLD)
    assert all(same[name] is array for name, array in old.items())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (OLD, NEW, "took over 2 of 5 classes: dog, cat; 3 new: fox, hen, owl; 2 of the weights not used: bird, fish"),
        (OLD, OLD, "took over all 4 classes: cat, dog, bird, fish"),
        (OLD, OLD[::-1], "took over 4 of 4 classes: fish, bird, dog, cat, in another order"),
        (OLD, OLD[1:], "took over 3 of 3 classes: dog, bird, fish; 1 of the weights not used: cat"),
        (("a",), ("b",), "took over 0 of 1 class; 1 new: b; 1 of the weights not used: a"),
    ],
)
def test_the_counts_are_said(old: tuple[str, ...], new: tuple[str, ...], words: str) -> None:
    assert ClassRows.between(old, new).words() == words


def test_variances_of_another_constant_have_the_same_effect() -> None:
    facts = model_facts("yolov4")
    arrays = {"neck.a.bn.moving_variance": np.full(3, 0.5, np.float32), "neck.a.bn.gamma": np.ones(3, np.float32)}
    started = starting_arrays(arrays, arrays, manifest_of("yolov4", OLD, bn_eps=1e-2), OLD)
    np.testing.assert_allclose(started["neck.a.bn.moving_variance"], 0.5 + 1e-2 - facts.bn_eps, rtol=1e-6)
    np.testing.assert_array_equal(started["neck.a.bn.gamma"], 1)


@pytest.mark.parametrize("model", ["yolov5n-r7", "yolov4-tiny"])
def test_a_network_starts_with_the_arrays_of_the_detector(model: str, tmp_path: Path, mindspore_ready: None) -> None:
    from kubeyolo.models.registry import build_model

    bundle = open_bundle(Place.of(detector_bundle(tmp_path / "old", model, OLD)))
    arrays = load_file(bundle.path(WEIGHTS))
    for classes in (OLD, NEW):
        network = build_model(model, len(classes), seed=1)
        fresh = {each.name: each.asnumpy().copy() for each in network.get_parameters()}
        Start(weights=bundle).load(network, classes)
        now = {each.name: each.asnumpy() for each in network.get_parameters()}
        differ = [name for name, array in now.items() if array.shape != arrays[name].shape]
        assert all(name.startswith("head.m.") for name in differ) and bool(differ) is (classes == NEW)
        assert all(np.array_equal(now[name], arrays[name]) for name in now if name not in differ)
        for name in differ:
            rows = now[name].reshape(3, 5 + len(NEW), -1)
            np.testing.assert_array_equal(rows[:, 6], fresh[name].reshape(3, 5 + len(NEW), -1)[:, 6])
            np.testing.assert_array_equal(rows[:, 7], arrays[name].reshape(3, 5 + len(OLD), -1)[:, 5])


def test_the_digest_of_the_weights_is_part_of_the_identity() -> None:
    def identity(digest: str = "", **train: Any) -> dict[str, Any]:
        config = Config.model_validate({"train": train})
        return training_identity(TrainingSpec(dataset="", output="", config=config), "d", "", 1, digest)

    old = {key: value for key, value in identity().items() if key not in ("train.freeze", "weights")}
    assert "weights" not in identity() and changed_keys(old, identity()) == []
    assert changed_keys(old, identity("1")) == changed_keys(identity("2"), identity("1")) == ["weights"]
    assert changed_keys(old, identity(freeze=["backbone"])) == ["train.freeze"]
    # Where the weights are makes no difference.
    assert changed_keys(identity("1", weights="a"), identity("1", weights="b")) == []


def test_the_digest_covers_all_that_the_weights_of_the_training_depend_on() -> None:
    def digest(sha256: str = "0", classes: tuple[str, ...] = OLD, **more: Any) -> str:
        files = {WEIGHTS: {"size": 1, "sha256": sha256}}
        return weights_digest(
            BundleManifest.model_validate(manifest_of("yolov4", classes, **more).model_dump() | {"files": files})
        )

    assert digest() == digest(classes=("cat ", *OLD[1:])) == digest(parent="minio://other/place")
    assert len({digest(), digest("1"), digest(classes=OLD[::-1]), digest(bn_eps=1e-4)}) == 4


def test_two_processes_train_what_is_not_frozen(
    small_dataset: str, tmp_path: Path, mindspore_ready: None, capfd: pytest.CaptureFixture[str]
) -> None:
    dataset = open_dataset(Place.of(small_dataset))
    classes = dataset.manifest.classes
    old = detector_bundle(tmp_path / "old", "yolov4-tiny", (classes[1], "cat"))
    train = {"max_epoch": 1, "processes": 2, "freeze": "backbone", "lr": 0.05, "weights": old}
    config = spec_for(small_dataset, tmp_path, "yolov4-tiny", **train).config
    output = Place.of(tmp_path / "new")
    call = StepCall(store=Place.of(tmp_path / "store"), config=config, code="c", output=output)
    stored = facade.train(call, dataset, facade.HERE)

    lines = capfd.readouterr().out.splitlines()
    said = [line for line in lines if "starting from the detector" in line or "frozen: " in line]
    assert len(said) == 2 and f"took over 1 of {len(classes)} classes: {classes[1]}; " in said[0]
    before, bundle = open_bundle(Place.of(old)), open_bundle(output / "bundle")
    arrays, trained = (load_file(each.path(WEIGHTS)) for each in (before, bundle))
    backbone = [name for name in arrays if name.startswith("backbone.")]
    assert len(backbone) > 50 and all(np.array_equal(arrays[name], trained[name]) for name in backbone)
    others = [name for name in arrays if not name.startswith("backbone.")]
    assert not any(np.array_equal(arrays[name], trained[name]) for name in others)
    identity = read_result(output.store).identity
    assert identity["weights"] == weights_digest(before.manifest) and identity["train.freeze"] == ["backbone"]

    record = bundle.manifest.config["started_from"]
    assert bundle.manifest.parent == record["bundle"] == before.uri
    assert record["classes"] == {"taken": [classes[1]], "new": [classes[0], *classes[2:]], "left_out": ["cat"]}
    metrics = stored.record.metrics
    assert (metrics["started_from"], metrics["classes_taken"], metrics["classes_new"]) == (before.uri, 1, 2)
    assert f"1 of 3: {classes[1]}" in stored.report().decode()


def test_weights_of_another_model_are_refused_with_the_model_to_choose(
    small_dataset: str, tmp_path: Path, mindspore_ready: None
) -> None:
    old = detector_bundle(tmp_path / "old", "yolov5n-r7", OLD)
    spec = spec_for(small_dataset, tmp_path / "new", "yolov4-tiny").model_copy(update={"weights": old})
    with pytest.raises(InputError, match="is a detector of model yolov5n-r7, .*choose the model yolov5n-r7"):
        Start.of(spec)
