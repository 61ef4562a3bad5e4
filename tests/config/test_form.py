"""The form of a run: texts in fields, all other settings nested in one, and the configuration that they make."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubeyolo.catalogue import FIELDS, PIPELINES
from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.config.form import check_fields, describe_field, fill_form, read_settings, resolve_form, setting_fields
from kubeyolo.config.load import known_keys, load_config, nest, preset
from kubeyolo.errors import InputError

MODEL = "yolov5n-r7"
SETTING_FIELDS = {
    "image_size": "train.image_size",
    "per_batch_size": "train.per_batch_size",
    "max_epoch": "train.max_epoch",
    "lr": "train.lr",
    "min_ap": "evaluate.min_ap",
    "max_drop": "quantize.max_drop",
    "max_regression": "retrain.max_regression",
    "weights": "train.weights",
    "start_from": "retrain.start_from",
}
KEYS = tuple(key for key in known_keys() if key != "model")
TRIED = (
    True,
    False,
    1,
    11,
    0.0005,
    2,
    0.5,
    0.25,
    64,
    96,
    "adamw",
    "pycocotools",
    "qat",
    "linear",
    "exponential",
    "Ascend",
    "entropy",
    "diou",
    "float16",
    "static",
    "ignore",
    "finetune",
    "fresh",
    "last",
    "strict",
    "openvino",
    "fail",
    "minio://b/x.json",
)
TRIED_LISTS = ((3, 5), ("onnx",))


def names(pipeline: str) -> list[str]:
    return list(CompiledPipeline.named(pipeline).fields)


def value_of(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = getattr(config, name)
    return config


@cache
def other_value(key: str) -> Any:
    """Return a value of a key that is allowed and not that of the preset."""
    before = value_of(load_config(MODEL), key)
    for value in (*TRIED, *map(list, TRIED_LISTS), {"box_outside": "refuse"}):
        try:
            after = value_of(load_config(MODEL, sets=[f"{key}={json.dumps(value)}"]), key)
        except InputError:
            continue
        # An interval that is worked out has values of two types.
        is_same_type = type(after) is type(before) or before == "auto"
        if after != before and is_same_type and not (isinstance(value, bool) and after is not value):
            return value
    raise AssertionError(f"no other value of {key} is known here")


def test_fields_of_settings_have_the_name_of_their_key() -> None:
    assert setting_fields() == SETTING_FIELDS


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_field_of_a_form_is_described_and_takes_text(pipeline: str) -> None:
    found = CompiledPipeline.named(pipeline).fields
    assert set(found) <= {*FIELDS, *SETTING_FIELDS}
    for name, facts in found.items():
        assert facts["parameterType"] == "STRING", name
        assert facts["description"] == describe_field(name) and len(facts["description"]) > 10, name


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("image_size", "320", 320),
        ("per_batch_size", "16", 16),
        ("max_epoch", " 7 ", 7),
        ("max_epoch", "7.0", 7),
        ("lr", "1e-3", 0.001),
        ("min_ap", "0.5", 0.5),
        ("max_drop", "2", 2.0),
        ("max_regression", "-0.5", -0.5),
    ],
)
def test_a_field_sets_its_key_and_is_the_origin_of_the_value(field: str, text: str, value: float) -> None:
    resolved = resolve_form({"model": MODEL, field: text})
    found = value_of(resolved.config, SETTING_FIELDS[field])
    assert found == value and type(found) is type(value)
    assert resolved.origins[SETTING_FIELDS[field]] == f"the field {field}"


def test_empty_fields_say_nothing() -> None:
    empty = dict.fromkeys([*SETTING_FIELDS, *FIELDS], "")
    resolved = resolve_form(empty)
    assert resolved.config == resolve_form({}).config == load_config()
    assert set(resolved.origins.values()) == {f"preset {MODEL}"}
    assert resolve_form({**empty, "settings": "  \n"}).config == resolve_form({"settings": "{}"}).config


@pytest.mark.parametrize(
    ("field", "value"),
    [("min_ap", 0.0), ("max_drop", 0.0), ("max_regression", 0.0)],
)
def test_zero_in_a_field_is_a_value(field: str, value: float) -> None:
    resolved = resolve_form({field: "0"})
    assert value_of(resolved.config, SETTING_FIELDS[field]) == value
    assert resolved.origins[SETTING_FIELDS[field]] == f"the field {field}"


def test_zero_in_settings_is_a_value() -> None:
    kept = {"train": {"seed": 7}}
    assert resolve_form({}, kept=kept).config.train.seed == 7
    assert resolve_form({"settings": "train: {seed: 0}"}, kept=kept).config.train.seed == 0


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("train: {seed: 0}", "train.seed", 0),
        ("{train: {seed: 3}}", "train.seed", 3),
        ('{"train": {"seed": 3}}', "train.seed", 3),
        ("train:\n  seed: 3\n  nesterov: false\n", "train.nesterov", False),
        ("train.seed: 3", "train.seed", 3),
        ("pretrain: {enabled: false}", "pretrain.enabled", False),
        ("train: {lr: 1e-3}", "train.lr", 0.001),
        ("export: {formats: [onnx]}", "export.formats", ("onnx",)),
        ("quantize:\ntrain: {warmup_epochs: 0}", "train.warmup_epochs", 0.0),
    ],
)
def test_settings_are_yaml_or_json(text: str, key: str, value: Any) -> None:
    resolved = resolve_form({"model": MODEL, "settings": text})
    assert value_of(resolved.config, key) == value
    assert resolved.origins[key] == "the field settings"


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (
            {"settings": "train: {max_epch: 3}"},
            "unknown configuration key 'train.max_epch' .from the field settings.; ",
        ),
        ({"settings": "train: {max_epch: 3}"}, "did you mean 'train.max_epoch'"),
        ({"settings": "train: {min_ap: 0.5}"}, "did you mean 'evaluate.min_ap'"),
        ({"settings": "trian: {seed: 3}"}, "unknown configuration key 'trian' .from the field settings."),
        ({"settings": "train: 3"}, "train .from the field settings. is 3: it is a section"),
        ({"settings": "train: {"}, "the field settings: not JSON or YAML: "),
        ({"settings": "a: b: c"}, "the field settings: not JSON or YAML: "),
        ({"settings": "[train]"}, "the field settings is '.train.': expected sections of keys and values, such as"),
        ({"settings": "seed"}, "the field settings is 'seed': expected sections"),
        (
            {"settings": "train: {seed: -1}"},
            "train.seed = -1 .from the field settings. is not allowed: expected a whole",
        ),
        ({"settings": "train: {lr: null}"}, "train.lr = None .from the field settings. is not allowed"),
        ({"settings": "model: yolov5s"}, "model = 'yolov5s' in the field settings: choose it with the field model"),
        ({"max_epoch": "ten"}, "train.max_epoch = 'ten' .from the field max_epoch. is not allowed: expected a whole"),
        ({"max_epoch": "1.5"}, "train.max_epoch = '1.5'"),
        ({"max_epoch": "true"}, "train.max_epoch = 'true'"),
        ({"lr": "fast"}, "train.lr = 'fast' .from the field lr. is not allowed: expected a number > 0"),
        ({"max_drop": "nan"}, "quantize.max_drop = 'nan'"),
        ({"max_regression": "inf"}, "retrain.max_regression = 'inf'"),
        ({"min_ap": "50"}, "evaluate.min_ap = '50' .*expected a number >= 0 and <= 1"),
        ({"model": "yolov5nn-r7"}, "unknown model 'yolov5nn-r7'; did you mean 'yolov5n-r7'"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(form: Mapping[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        resolve_form(form)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("field", SETTING_FIELDS)
@pytest.mark.parametrize("same", [True, False])
def test_a_value_in_its_field_and_in_settings_is_refused(field: str, same: bool) -> None:
    key = SETTING_FIELDS[field]
    value = other_value(key)
    nested = value if same else value_of(load_config(MODEL), key)
    with pytest.raises(InputError) as refused:
        resolve_form({field: str(value), "settings": json.dumps(nest({key: nested}))})
    message = str(refused.value)
    assert message.startswith(f"{key} is given twice: {str(value)!r} by the field {field}, and {nested!r} in the field")


def test_a_form_for_a_bundle_lies_over_what_it_was_trained_with() -> None:
    kept: dict[str, dict[str, Any]] = {"train": {"image_size": 320, "seed": 7}, "augment": {"mosaic": 0.25}}
    resolved = resolve_form({"settings": "{train: {seed: 3}, evaluate: {max_det: 5}}"}, "yolov5s-r7", kept)
    config = resolved.config
    assert (config.model, config.train.image_size, config.train.seed) == ("yolov5s-r7", 320, 3)
    assert (config.augment.mosaic, config.evaluate.max_det) == (0.25, 5)
    assert resolved.origins["train.image_size"] == "the bundle"
    with pytest.raises(InputError, match="unknown configuration key 'train.sed' .from the bundle."):
        resolve_form({}, "yolov5s-r7", {"train": {"sed": 7}})


def test_patterns_in_settings_are_split_at_commas() -> None:
    assert resolve_form({"settings": "{train: {freeze: 'backbone,*.bias'}}"}).config.train.freeze == (
        "backbone",
        "*.bias",
    )


def test_read_settings_gives_what_is_nested() -> None:
    assert read_settings("") == read_settings("# a comment") == {}
    assert read_settings('{"train": {"seed": 1}}') == {"train": {"seed": 1}}


KNOWN = names("detector-training")


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"max_epochs": "3"}, "unknown field 'max_epochs'; did you mean 'max_epoch'"),
        ({"train_overrides": {}}, "unknown field 'train_overrides'"),
        ({"seed": 1}, "unknown field 'seed'; it has no field: write {train: {seed: …}} into the field settings"),
        ({"recipe": "scratch"}, "it has no field: write {recipe: …} into the field settings"),
        ({"split": "val"}, "write {data: {split: …}} or {evaluate: {split: …}} into the field settings"),
        (
            {"conf_threshold": 0.1},
            "write {evaluate: {conf_threshold: …}} or {predict: {conf_threshold: …}} into the field settings",
        ),
        ({"max_regression": 1}, "write {retrain: {max_regression: …}} into the field settings"),
        ({"data": ""}, "the field 'data' is empty (URI of the data set"),
        ({"data": None}, "the field 'data' is empty"),
        ({}, "the field 'data' is empty"),
    ],
)
def test_fields_that_a_form_does_not_have_or_needs_are_named(form: Mapping[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        check_fields(form, KNOWN, ["data"])
    assert message in str(refused.value)


def test_values_as_people_write_them_into_files_become_texts() -> None:
    form = {"data": "minio://d", "max_epoch": 7, "lr": 0.5, "settings": {"train": {"seed": 1}}, "version": None}
    checked = check_fields(form, KNOWN, ["data"])
    assert checked == {
        "data": "minio://d",
        "max_epoch": "7",
        "lr": "0.5",
        "settings": '{"train": {"seed": 1}}',
    }
    assert resolve_form(checked).config.train.seed == 1


def test_a_command_line_fills_fields_first(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("model: yolov5s\ntrain: {max_epoch: 7, lr: 0.5, seed: 1}\naugment.mosaic: 0.25\n")
    form = fill_form(KNOWN, None, file, ["train.seed=2", "evaluate.min_ap=0"], data="minio://d", version="")
    assert form == {
        "model": "yolov5s",
        "max_epoch": "7",
        "lr": "0.5",
        "min_ap": "0",
        "settings": '{"augment": {"mosaic": 0.25}, "train": {"seed": 2}}',
        "data": "minio://d",
    }
    assert fill_form(KNOWN, "yolov5m", file)["model"] == "yolov5m"
    assert fill_form(KNOWN) == {"model": MODEL}


def test_a_setting_whose_field_a_form_does_not_have_goes_into_settings() -> None:
    pairs = ["retrain.max_regression=0.5", "train.max_epoch=3"]
    training, retraining = (fill_form(names(f"detector-{kind}"), sets=pairs) for kind in ("training", "retraining"))
    assert training == {"model": MODEL, "max_epoch": "3", "settings": '{"retrain": {"max_regression": 0.5}}'}
    assert retraining == {"model": MODEL, "max_epoch": "3", "max_regression": "0.5"}
    evaluation = fill_form(names("model-evaluation"), sets=[*pairs, "model=yolov5s"])
    assert list(evaluation) == ["settings"]
    assert read_settings(evaluation["settings"]) == {"retrain": {"max_regression": 0.5}, "train": {"max_epoch": 3}}


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("key", KEYS)
def test_every_key_reaches_the_configuration_by_the_form(key: str, pipeline: str) -> None:
    pair = f"{key}={json.dumps(other_value(key))}"
    expected = load_config(MODEL, sets=[pair])
    assert expected != load_config(MODEL)
    form = fill_form(names(pipeline), MODEL, sets=[pair])
    assert set(form) <= set(names(pipeline))
    assert resolve_form(form).config == expected


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    in_file=st.lists(st.sampled_from(KEYS), unique=True, max_size=12),
    in_sets=st.lists(st.sampled_from(KEYS), unique=True, max_size=12),
    dotted=st.booleans(),
    model=st.sampled_from(["", "yolov5s-r7", "yolov4-tiny"]),
    pipeline=st.sampled_from(["detector-training", "detector-retraining"]),
)
def test_a_form_gives_the_configuration_of_its_command_line(
    tmp_path: Path, in_file: list[str], in_sets: list[str], dotted: bool, model: str, pipeline: str
) -> None:
    values = {key: other_value(key) for key in in_file}
    file = tmp_path / "my.yaml"
    file.write_text(yaml.safe_dump((values if dotted else nest(values)) | ({"model": model} if model else {})))
    pairs = [f"{key}={json.dumps(preset(MODEL).get(key, other_value(key)))}" for key in in_sets]
    form = fill_form(names(pipeline), None, file, pairs)
    assert all(isinstance(text, str) and text for text in form.values())
    assert resolve_form(form).config == load_config(None, file, pairs)


@pytest.mark.parametrize("text", ["10", "10.0", " 1e1 ", "+10"])
def test_a_number_is_the_same_however_it_is_written(text: str) -> None:
    forms = [{"max_epoch": text}, {"settings": f"train: {{max_epoch: {text}}}"}]
    forms += [
        {"settings": json.dumps({"train": {"max_epoch": text}})},
        fill_form(KNOWN, sets=[f"train.max_epoch={text}"]),
    ]
    for form in forms:
        found = resolve_form(form).config.train.max_epoch
        assert found == 10 and type(found) is int


@pytest.mark.parametrize("text", ["0", "0.0", "-0.0", "-0", "0e5"])
def test_zero_has_one_sign(text: str) -> None:
    for form in ({"max_regression": text}, {"settings": f"retrain: {{max_regression: {text}}}"}):
        assert str(resolve_form(form).config.retrain.max_regression) == "0.0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {seed: true}", "train.seed = True .* expected a whole number"),
        ("train: {lr: true}", "train.lr = True .* expected a number"),
        ("train: {lr_epochs: [1, true]}", "train.lr_epochs = .* expected a list"),
        ("train: {nesterov: 1}", "train.nesterov = 1 .* expected true or false"),
        ("train: {nesterov: yes}", "train.nesterov = 'yes' .* expected true or false"),
        ("train: {nesterov: 1.0}", "train.nesterov = 1.0 .* expected true or false"),
        ("train: {max_epoch: 1_0}", "train.max_epoch = '1_0'"),
        ("train: {max_epoch: 1:30}", "train.max_epoch = '1:30'"),
        ("train: {seed: 4294967296}", "train.seed = 4294967296 .* <= 4294967295"),
        ("train: {image_size: 8224}", "train.image_size = 8224 .* <= 8192"),
        ("train: {per_batch_size: 65537}", "<= 65536"),
        ("train: {processes: 65537}", "<= 65536"),
        ("train: {max_epoch: 1000001}", "<= 1000000"),
        (f"train: {{lr: {'9' * 390}}}", "train.lr = "),
        ("train: {lr_epochs: [-1]}", "train.lr_epochs"),
    ],
)
def test_values_of_another_kind_and_beyond_the_bounds_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve_form({"settings": text})


def test_values_that_came_through_a_struct_are_taken() -> None:
    # Every number of a struct is a double.
    kept = {"train": {"seed": 4294967295.0, "lr_epochs": [3.0, 5.0], "nesterov": False}, "data": {"workers": 8.0}}
    config = resolve_form({}, kept=kept).config
    assert (config.train.seed, config.train.lr_epochs, config.data.workers) == (2**32 - 1, (3, 5), 8)
    assert type(config.data.workers) is int


def test_formats_have_one_order() -> None:
    configs = [
        resolve_form({"settings": f"export: {{formats: {formats}}}"}).config
        for formats in ("[onnx, mindir]", "[mindir, onnx]", "[onnx, mindir, onnx]")
    ]
    assert {config.export.formats for config in configs} == {("mindir", "onnx")}


def test_characters_beyond_the_first_plane_reach_the_configuration() -> None:
    form = fill_form(KNOWN, sets=["evaluate.split=😀"])
    assert "😀" in form["settings"]
    assert resolve_form(form).config.evaluate.split == "😀"
    assert resolve_form({"settings": json.dumps({"evaluate": {"split": "😀"}})}).config.evaluate.split == "😀"


@pytest.mark.parametrize("version", [1.1, 2, True, ["1"]])
def test_a_text_that_is_written_as_another_value_is_refused(version: Any) -> None:
    with pytest.raises(InputError, match="the field 'version' is .*: write it in quotes"):
        check_fields({"data": "minio://d", "version": version}, KNOWN, ["data"])
