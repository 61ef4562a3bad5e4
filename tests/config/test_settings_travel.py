"""Settings travel as JSON, as YAML, by a form and through Kubeflow, and arrive as they left."""

from __future__ import annotations

import json
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format, struct_pb2
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from kubeyolo.config.foreign_words import ABSENT, meant_keys, plain_word
from kubeyolo.config.form import resolve_form
from kubeyolo.config.load import (
    config_digest,
    flatten,
    known_keys,
    load_config,
    nest,
    parse_sets,
    preset,
    preset_names,
    resolve_layers,
)
from kubeyolo.config.schema import Config
from kubeyolo.config.text import read_text
from kubeyolo.errors import InputError
from tests.config.any_settings import KEYS, any_settings, any_value

models = st.sampled_from(preset_names())


def configured(values: dict[str, Any], model: str | None = None) -> Config:
    """Return the configuration of nested or dotted values over those of the preset."""
    return resolve_layers(model, [("the values", flatten(values, "the values"))]).config


def value_of(values: Any, key: str) -> Any:
    """Return a value of a configuration in the types of JSON."""
    for name in key.split("."):
        values = values[name]
    return values


@given(models, any_settings)
@settings(max_examples=30)
def test_a_configuration_holds_what_was_set_and_else_what_the_preset_has(model: str, values: dict[str, Any]) -> None:
    dumped = configured(values, model).model_dump(mode="json")
    assert {key: value_of(dumped, key) for key in values} == values
    others = load_config(model).model_dump(mode="json")
    assert all(value_of(dumped, key) == value_of(others, key) for key in KEYS if key not in values)
    assert dumped["model"] == model


@given(models, any_settings)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_whole_configuration_is_read_from_what_is_written_of_it(
    tmp_path: Path, model: str, values: dict[str, Any]
) -> None:
    config = configured(values, model)
    dumped = config.model_dump(mode="json")
    file = tmp_path / "whole.yaml"
    for text in (json.dumps(dumped), yaml.safe_dump(dumped), yaml.safe_dump(dumped, allow_unicode=True, width=40)):
        assert read_text(text, "a text") == dumped
        file.write_text(text, encoding="utf-8")
        assert load_config(file=file) == config
    assert Config.model_validate_json(config.model_dump_json()) == config


@given(models, any_settings)
@settings(max_examples=30)
def test_whole_numbers_that_a_struct_made_floats_are_whole_again(model: str, values: dict[str, Any]) -> None:
    config = configured(values, model)
    sections = {name: section for name, section in config.model_dump(mode="json").items() if name != "model"}
    struct = struct_pb2.Struct()
    json_format.ParseDict(sections, struct)
    received = json_format.MessageToDict(struct)
    assert type(received["train"]["max_epoch"]) is float
    again = resolve_form({}, model, received).config
    assert again == config and config_digest(again) == config_digest(config)


@given(models, any_settings, st.data())
@settings(max_examples=25)
def test_every_value_has_the_origin_of_the_last_layer_that_sets_it(
    model: str, values: dict[str, Any], data: st.DataObject
) -> None:
    places = ("a file", "--set", "the field settings")
    layers: list[tuple[str, dict[str, Any]]] = [(place, {}) for place in places]
    last: dict[str, str] = {}
    for key, value in values.items():
        for number in sorted(data.draw(st.sets(st.integers(0, 2), min_size=1))):
            last[key] = places[number]
            layers[number][1][key] = data.draw(any_value(key))
        next(own for place, own in layers if place == last[key])[key] = value
    resolved = resolve_layers(model, layers)
    dumped = resolved.config.model_dump(mode="json")
    assert {key: value_of(dumped, key) for key in values} == values
    expected = dict.fromkeys(preset(model), f"preset {model}") | last
    # Only the entries of a mapping have keys of their own.
    assert {key: resolved.origins[key] for key in expected} == expected


@given(any_settings)
@settings(max_examples=30)
def test_values_are_the_same_by_pairs_as_nested(values: dict[str, Any]) -> None:
    pairs = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    assert load_config(sets=pairs) == configured(nest(values)) == configured(values)


plain = st.text(st.sampled_from("abcXYZ019=/._-+ü漢"), min_size=1, max_size=12).map(lambda text: f"t{text}")


@given(plain, st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12))
def test_texts_of_pairs_keep_quotes_and_equals_signs(word: str, text: str) -> None:
    quoted = "'" + text.replace("'", "''") + "'"
    for written, value in ((word, word), (json.dumps(text), text), (quoted, text)):
        assert parse_sets([f"evaluate.split={written}"]) == {"evaluate.split": value}
        assert parse_sets([f" evaluate.split = {written}"]) == {"evaluate.split": value}


@given(st.sampled_from([key for key in KEYS if "." in key]), st.data())
@settings(max_examples=200)
def test_a_key_with_a_slip_is_refused_with_the_nearest_ones(key: str, data: st.DataObject) -> None:
    start = key.index(".") + 1
    place = data.draw(st.integers(start, len(key) - 1))
    slip = data.draw(st.sampled_from(["left out", "twice", "other"]))
    wrong = key[:place] + {"left out": "", "twice": key[place] * 2, "other": "x"}[slip] + key[place + 1 :]
    known = known_keys()
    assume(wrong not in known and len(wrong) > start)
    assume(not meant_keys(wrong, [section for section in Config.model_fields]) and plain_word(wrong) not in ABSENT)
    with pytest.raises(InputError) as refused:
        configured({wrong: 1})
    message = str(refused.value)
    assert message.startswith(f"unknown configuration key {wrong!r} (from the values); ")
    suggested = [part for part in message.partition("did you mean ")[2].split("'") if "." in part]
    if suggested:
        assert set(suggested) <= set(known)
        # None of them is farther from what was typed than what was meant, or they begin or end as it does.
        assert all(
            SequenceMatcher(None, each, wrong).ratio() >= SequenceMatcher(None, key, wrong).ratio()
            or each.startswith(wrong)
            or each.endswith(wrong[start:])
            for each in suggested
        ), message
    else:
        assert all(name in message for name in known if name.startswith(key[:start]))
