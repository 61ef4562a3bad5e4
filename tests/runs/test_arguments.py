"""Values for the parameters of a pipeline are looked at before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.errors import InputError
from kubeyolo.runs.arguments import check_arguments, check_contents, parameters_of, parse_pairs
from kubeyolo.runs.bind import pipeline_text
from kubeyolo.storage.uri import open_store, write_document

NEEDED = {"data": "minio://data/x", "store": "minio://kubeyolo"}


def test_every_parameter_has_a_description() -> None:
    parameters = parameters_of(pipeline_text())
    assert {"data", "store", "model", "max_epoch", "train_overrides"} <= set(parameters)
    assert [name for name, facts in parameters.items() if len(facts.get("description", "")) < 10] == []


def test_pairs_are_read_as_yaml() -> None:
    pairs = ["max_epoch=10", "lr=0.01", "model=yolov5s-r7", "train_overrides={warmup_epochs: 1}", "version="]
    assert parse_pairs(pairs) == {
        "max_epoch": 10,
        "lr": 0.01,
        "model": "yolov5s-r7",
        "train_overrides": {"warmup_epochs": 1},
        "version": None,
    }


def test_values_get_the_types_of_their_parameters() -> None:
    given = {"lr": 1, "version": 3, "max_epoch": 7, "train_overrides": {"nesterov": True}}
    assert check_arguments(pipeline_text(), NEEDED | given) == NEEDED | {
        "lr": 1.0,
        "version": "3",
        "max_epoch": 7,
        "train_overrides": {"nesterov": True},
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_epochs": 3}, "unknown parameter 'max_epochs'; did you mean 'max_epoch'"),
        ({"max_epoch": "ten"}, "parameter max_epoch = 'ten': expected a whole number"),
        ({"max_epoch": 1.5}, "parameter max_epoch = 1.5: expected a whole number"),
        ({"max_epoch": True}, "parameter max_epoch = True: expected a whole number"),
        ({"lr": "fast"}, "parameter lr = 'fast': expected a number"),
        ({"model": ["a"]}, r"parameter model = \['a'\]: expected a text"),
        ({"train_overrides": "x"}, "parameter train_overrides = 'x': expected a mapping"),
    ],
)
def test_wrong_values_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_arguments(pipeline_text(), NEEDED | values)


def test_a_value_that_is_missing_is_named_with_its_meaning() -> None:
    with pytest.raises(InputError, match=r"no value for the parameter 'store' \(URI of the store"):
        check_arguments(pipeline_text(), {"data": "minio://data/x"})


@pytest.mark.parametrize("pair", ["max_epoch", "=3"])
def test_a_pair_has_a_name_and_a_value(pair: str) -> None:
    with pytest.raises(InputError, match="expected name=value"):
        parse_pairs([pair])
    with pytest.raises(InputError, match="the value is not YAML"):
        parse_pairs(["lr={"])


ASCEND = {"launcher": "volcano", "cluster": {"preset": "ascend910b"}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train_overrides": {"warmup_epoch": 1}}, "did you mean 'train.warmup_epochs'"),
        ({"image_size": 100}, "train.image_size = 100"),
        ({"model": "yolov5nn-r7"}, "unknown model 'yolov5nn-r7'; did you mean 'yolov5n-r7'"),
        ({"launcher": "vulcano"}, "did you mean 'volcano'"),
        ({"launcher": "volcano", "cluster": {"que": "x"}}, "unknown key 'que' of the cluster settings; did you mean"),
        ({"launcher": "volcano", "cluster": {"nodes": 3}, "processes": 2}, "but train.processes is 2"),
        ({"launcher": "local", "cluster": {"queue": "x"}}, "settings of the cluster are of the launcher volcano"),
        ({"cluster": {"queue": "x"}}, "settings of the cluster are of the launcher volcano"),
        (ASCEND | {"processes": 16}, "train.device_target is CPU, but these nodes are for Ascend"),
        (ASCEND | {"train_overrides": {"device_target": "Ascend"}}, "pods of 8 devices do not divide"),
        ({"model": "yolov4-p7", "image_size": 96}, "train.image_size = 96: yolov4-p7 needs a multiple of 128"),
        ({"min_ap": 50.0}, "evaluate.min_ap = 50.0 .*expected a number >= 0 and <= 1"),
        ({"min_ap": -1}, "evaluate.min_ap = -1.0"),
        ({"min_ap": 0.0, "evaluate_overrides": {"min_ap": 7}}, "evaluate.min_ap = 7"),
        ({"max_drop": -3}, "quantize.max_drop = -3.0 .*expected a number >= 0"),
        ({"max_drop": float("nan")}, "quantize.max_drop = nan"),
        ({"export_overrides": {"formats": ["mindir"]}}, "the pipeline quantizes the ONNX network; add onnx"),
        ({"export_overrides": {"formats": ["onnx", "air"]}}, "air can be written on an Ascend device only"),
        ({"version": "../x y"}, "version '../x y': expected letters, digits"),
        ({"version": "latest.json"}, "the name of the pointer to the model in use"),
        ({"run_name": "a/../../b"}, "parameter run_name: 'a/../../b' is no key of a store"),
        ({"run_name": ""}, "parameter run_name: '' is no key of a store"),
        ({"data": "/home/me/data"}, "parameter data /home/me/data: pods see no folder of this machine"),
        ({"classification": "/x"}, "parameter classification /x: pods see no folder of this machine"),
        ({"store": ""}, "the URI of a store is empty"),
        ({"store": "store"}, "parameter store store: pods see no folder of this machine"),
    ],
)
def test_settings_that_do_not_go_together_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_contents(check_arguments(pipeline_text(), NEEDED | values))


@pytest.mark.parametrize(
    ("pipeline", "values", "message"),
    [
        ("detector-retraining", {"pointer": "latest.json"}, "parameter pointer latest.json: pods see no folder"),
        ("detector-retraining", {"latest": "minio://models/latest"}, "models/latest: the name of a pointer ends in"),
        ("detector-retraining", {"max_regression": float("inf")}, "max_regression = inf: expected a number of points"),
        ("detector-retraining", {"min_ap": 30}, "evaluate.min_ap = 30"),
        ("model-evaluation", {"runtime": "onx"}, "unknown runtime 'onx'; did you mean 'onnx'"),
        ("model-evaluation", {"baseline": "old"}, "parameter baseline old: pods see no folder"),
    ],
)
def test_contents_of_the_other_pipelines_are_looked_at_too(pipeline: str, values: dict[str, Any], message: str) -> None:
    needed = {
        "detector-retraining": {"pointer": "minio://data/latest.json", "store": "minio://kubeyolo"},
        "model-evaluation": NEEDED | {"bundle": "minio://models/new"},
    }[pipeline]
    check_contents(check_arguments(pipeline_text(pipeline), needed))
    with pytest.raises(InputError, match=message):
        check_contents(check_arguments(pipeline_text(pipeline), needed | values))


def test_a_split_that_not_every_data_set_has_is_looked_for(minio_bucket: str, tmp_path: Path) -> None:
    data = f"minio://{minio_bucket}/data/shapes"
    folder = generate_sample_dataset(tmp_path / "shapes", train=2, val=1, image_size=(64, 64))
    open_store(data).put_tree(folder, "")
    pointer = f"minio://{minio_bucket}/data/latest.json"
    write_document(pointer, b'{"data": "shapes"}')
    for place in ({"data": data}, {"pointer": pointer}):
        check_contents(place | {"evaluate_overrides": {"split": "train"}})
        with pytest.raises(InputError, match=f"evaluate.split: {data} has no split 'test'; known: train, val"):
            check_contents(place | {"evaluate_overrides": {"split": "test"}})


def test_settings_that_go_together_are_taken() -> None:
    overrides = {"train_overrides": {"device_target": "Ascend"}}
    check_contents(check_arguments(pipeline_text(), NEEDED | ASCEND | overrides | {"processes": 16}))
    check_contents(NEEDED)
