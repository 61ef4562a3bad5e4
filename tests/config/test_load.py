"""What a configuration is made of, and what is said when a part of it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubeyolo.config.load import (
    allowed_values,
    config_digest,
    flatten,
    known_keys,
    load_config,
    parse_sets,
    preset_names,
    read_mapping,
    sparse_values,
)
from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError
from kubeyolo.launch.settings import ClusterSettings, cluster_settings
from kubeyolo.models.named_facts import model_facts, model_names


def test_every_registered_model_has_a_preset() -> None:
    assert set(model_names()) <= set(preset_names())


@pytest.mark.parametrize("model", preset_names())
def test_a_preset_is_a_whole_configuration(model: str) -> None:
    config, facts = load_config(model), model_facts(model)
    train = config.train
    assert config.model == model
    assert train.image_size % facts.strides[-1] == 0
    if facts.loss == "yolov5":
        assert train.image_size == 640
        assert (train.lr, train.lr_final, train.momentum) == (0.01, 0.01, 0.937)
    elif facts.loss == "scaledyolov4":
        assert train.image_size == facts.image_size
        assert (train.lr, train.lr_scheduler, train.lr_final, train.warmup_steps) == (
            0.01,
            "cosine_annealing",
            0.2,
            1000,
        )
    else:
        assert (train.image_size, train.momentum, train.nesterov) == (416, 0.9, False)
        assert (train.box_gain, train.obj_gain, train.cls_gain) == (10 if facts.loss == "yolov4" else 1, 1, 1)


def test_published_rates_of_the_darknet_family() -> None:
    yolov4, quant = load_config("yolov4").train, load_config("yolov3-quant").train
    assert (yolov4.lr, yolov4.lr_epochs, yolov4.max_epoch, yolov4.per_batch_size) == (0.001, (220, 250), 320, 32)
    assert (quant.lr, quant.lr_epochs, quant.max_epoch, quant.per_batch_size) == (0.012, (92, 105), 135, 16)


def test_later_layers_win(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("train:\n  max_epoch: 7\n  lr: 0.5\naugment.mosaic: 0.25\n")
    config = load_config("yolov5s", file, ["train.lr=0.25", "train.max_epoch=9.0"])
    assert (config.train.max_epoch, config.train.lr, config.augment.mosaic) == (9, 0.25, 0.25)


def test_the_model_comes_from_the_argument_else_the_pairs_else_the_file(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("model: yolov5m\n")
    assert load_config(file=file).model == "yolov5m"
    assert load_config(file=file, sets=["model=yolov5l"]).model == "yolov5l"
    assert load_config("yolov5s", file).model == load_config("yolov5s", file, ["model=yolov5s"]).model == "yolov5s"
    with pytest.raises(InputError, match="two models: 'yolov5s', and 'yolov5l' by --set model; leave one of them out"):
        load_config("yolov5s", file, ["model=yolov5l"])


def test_values_of_pairs_are_yaml() -> None:
    assert parse_sets(["export.formats=[onnx]", "data.cache=false", "train.lr=1.5e-3"]) == {
        "export.formats": ["onnx"],
        "data.cache": False,
        "train.lr": 0.0015,
    }
    assert load_config(sets=["train.lr=1e-3"]).train.lr == 0.001


def test_sparse_values_hold_only_what_was_said(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("train: {max_epoch: 7}\nquantize:\n")
    assert sparse_values(file, ["augment.mosaic=0"]) == {"train": {"max_epoch": 7}, "augment": {"mosaic": 0}}


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("train.max_epch=3", ["'train.max_epch'", "did you mean 'train.max_epoch'"]),
        ("max_epoch=3", ["'max_epoch'", "'train.max_epoch'"]),
        ("model=yolov5n-r8", ["'yolov5n-r8'", "did you mean 'yolov5n-r7'"]),
        ("train.max_epoch=x", ["train.max_epoch = 'x'", "--set", "a whole number >= 1"]),
        ("train.image_size=100", ["train.image_size = 100", "a multiple of 32"]),
        ("train.optimizer=adam", ["'adam'", "sgd, adamw"]),
        ("augment.mosaic=2", ["augment.mosaic = 2", ">= 0 and <= 1"]),
        ("train=3", ["train", "section"]),
        ("train.lr", ["key=value"]),
        ("export.batch_size=[1", ["export.batch_size=[1", "not JSON or YAML"]),
    ],
)
def test_a_wrong_pair_gives_one_line_that_says_what_is_allowed(pair: str, words: list[str]) -> None:
    with pytest.raises(InputError) as raised:
        load_config(sets=[pair])
    message = str(raised.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"train: {max_epch: 3}", ["train.max_epch", "my.yaml", "train.max_epoch"]),
        (b"train: {max_epoch: 0}", ["train.max_epoch = 0", "my.yaml", ">= 1"]),
        (b"- 1\n- 2\n", ["my.yaml", "not a list"]),
        (b"train: [", ["my.yaml", "not JSON or YAML"]),
        (b"a: \xff", ["my.yaml", "not UTF-8", "line 1"]),
    ],
)
def test_a_wrong_file_is_named_with_the_value(tmp_path: Path, content: bytes, words: list[str]) -> None:
    file = tmp_path / "my.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError) as raised:
        load_config(file=file)
    for word in words:
        assert word in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.yaml: cannot be read: No such file"):
        load_config(file=tmp_path / "absent.yaml")


def test_the_digest_tells_configurations_apart() -> None:
    one, same, other = load_config(), load_config(sets=["train.lr=0.01"]), load_config(sets=["train.lr=0.02"])
    assert config_digest(one) == config_digest(same) != config_digest(other)
    assert len(config_digest(one.train)) == 64


def test_known_keys_are_dotted() -> None:
    assert {"model", "train.max_epoch", "quantize.max_drop"} <= set(known_keys())


@pytest.mark.parametrize(
    "example", sorted((Path(__file__).parents[2] / "examples").glob("*.yaml")), ids=lambda p: p.name
)
def test_every_example_is_a_configuration(example: Path) -> None:
    given = flatten(read_mapping(example), str(example))
    config = load_config(file=example).model_dump()
    assert given
    assert {key: value_at(config, key) for key in given} == given


def value_at(values: Any, key: str) -> Any:
    for name in key.split("."):
        values = values[name]
    return list(values) if isinstance(values, tuple) else values


@pytest.mark.parametrize("owner", [*(type(getattr(Config(), name)) for name in Config.model_fields), ClusterSettings])
def test_every_whole_number_has_an_upper_bound_that_a_double_holds(owner: Any) -> None:
    if owner is str:
        return
    properties = owner.model_json_schema()["properties"]
    numbers = [schema.get("items", schema) | {"key": key} for key, schema in properties.items()]
    found = {number["key"]: number["maximum"] for number in numbers if number.get("type") == "integer"}
    assert all(bound < 2**53 for bound in found.values())


def test_values_of_another_version_are_told_apart() -> None:
    values = {"train": {"seed": 7, "gone_key": 1, "optimizer": "lion"}, "lost": {"a": 1}, "augment": {"mosaic": 0.25}}
    allowed, gone = allowed_values(values)
    assert allowed == {"train": {"seed": 7}, "augment": {"mosaic": 0.25}}
    assert gone == ("train.gone_key", "train.optimizer", "lost")


def test_values_of_the_cluster_are_read_as_others_are() -> None:
    pairs = ["nodes=10", "cpu=010", "one_pod_per_host=true", "environment={A: '1'}"]
    settings = cluster_settings(sets=pairs)[1]["train"]
    assert (settings.nodes, settings.cpu, settings.one_pod_per_host) == (10, "010", True)
    for pair, reason in {
        "nodes=true": "nodes = True: expected a number",
        "nodes=1:30": "nodes = '1:30': expected a number",
        "one_pod_per_host=1": "one_pod_per_host = 1: expected true or false",
        "max_retry=1001": "max_retry = 1001: .*less than or equal to 1000",
        "environment={A: &a b}": "--cluster-set 'environment={A: &a b}': not JSON or YAML: anchors and aliases",
    }.items():
        with pytest.raises(InputError, match=reason):
            cluster_settings(sets=[pair])
