"""Keys as other programs call them: the key that is suggested is the one that is meant, and is accepted."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import pytest

from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.config.foreign_words import ABSENT, KEYS, MEANINGS
from kubeyolo.config.form import check_fields, resolve_form
from kubeyolo.config.load import known_keys, load_config
from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError

LAST_WORDS = {key.rpartition(".")[2] for key in known_keys()}


@cache
def fields(pipeline: str) -> tuple[str, ...]:
    return tuple(CompiledPipeline.named(pipeline).fields)


def refusal(pair: str, file: Path | None = None) -> str:
    with pytest.raises(InputError) as refused:
        load_config(file=file, sets=[pair] if pair else [])
    return str(refused.value)


def suggested(message: str) -> list[str]:
    return re.findall(r"'([^']+)'", message.partition("did you mean")[2])


def default_of(key: str) -> object:
    section, _, name = key.partition(".")
    return getattr(getattr(Config(), section), name)


WRONG_KEYS = [
    pytest.param(f"{section}{word}", word)
    for section in ("", "train.")
    for word in KEYS
    if f"{section}{word}" not in known_keys()
]


@pytest.mark.parametrize(("name", "word"), WRONG_KEYS)
def test_the_key_that_is_suggested_for_a_word_is_accepted(name: str, word: str) -> None:
    keys = suggested(refusal(f"{name}=1"))
    assert keys and set(keys) <= set(KEYS[word])
    assert keys[0].startswith(("train.", "data.", "augment.")) or not any(
        key.startswith("train.") for key in KEYS[word]
    )
    for key in keys:
        value = default_of(key)
        section, _, last = key.partition(".")
        accepted = load_config(sets=[f"{key}={json.dumps(value)}"])
        assert getattr(getattr(accepted, section), last) == value


@pytest.mark.parametrize(
    ("pair", "keys"),
    [
        ("batch_size=16", ["train.per_batch_size"]),
        ("batch=16", ["train.per_batch_size"]),
        ("train.batch_size=16", ["train.per_batch_size"]),
        ("evaluate.batch_size=16", ["evaluate.per_batch_size"]),
        ("export.batch=16", ["export.batch_size"]),
        ("epochs=50", ["train.max_epoch"]),
        ("train.epochs=50", ["train.max_epoch"]),
        ("pretrain.epochs=50", ["pretrain.max_epoch"]),
        ("img-size=640", ["train.image_size"]),
        ("evaluate.imgsz=640", ["evaluate.image_size"]),
        ("lr0=0.01", ["train.lr"]),
        ("SOLVER.BASE_LR=0.01", ["train.lr"]),
        ("hyp.momentum=0.9", ["train.momentum"]),
        ("hyp.weight_decay=0.9", ["pretrain.weight_decay", "train.weight_decay"]),
        ("DATALOADER.NUM_WORKERS=4", ["data.workers"]),
        ("conf_thres=0.5", ["predict.conf_threshold", "evaluate.conf_threshold"]),
        ("predict.conf-thres=0.5", ["predict.conf_threshold"]),
        ("evaluate.iou=0.5", ["evaluate.iou_threshold"]),
        ("device=0", ["train.device_target"]),
        ("train.max_epch=3", ["train.max_epoch"]),
    ],
)
def test_the_key_that_is_meant(pair: str, keys: list[str]) -> None:
    assert suggested(refusal(pair)) == keys


@pytest.mark.parametrize("word", ABSENT)
def test_a_word_for_what_does_not_exist_suggests_no_key(word: str) -> None:
    message = refusal(f"train.{word}=1")
    assert message.endswith(f"; {ABSENT[word]}")
    assert not suggested(message)
    with pytest.raises(InputError, match=re.escape(ABSENT[word])):
        check_fields({word: "1"}, fields("detector-training"))


def test_a_setting_that_a_section_does_not_have_is_not_suggested_from_another() -> None:
    assert "train.image_size" not in refusal("predict.imgsz=640")


def test_a_key_inside_a_section_of_another_program_is_named(tmp_path: Path) -> None:
    file = tmp_path / "hyp.yaml"
    file.write_text("hyp:\n  flavour: 3\n  lr0: 0.01\n")
    message = refusal("", file)
    assert message.startswith(f"unknown configuration key 'hyp.lr0' (from {file})")
    assert suggested(message) == ["train.lr"]
    file.write_text("hyp:\n  flavour: 3\n")
    assert "unknown configuration key 'hyp' (from" in refusal("", file)


@pytest.mark.parametrize("word", sorted(set(KEYS) - LAST_WORDS))
@pytest.mark.parametrize("pipeline", ["detector-training", "detector-retraining"])
def test_the_field_that_is_suggested_for_a_word_is_accepted(pipeline: str, word: str) -> None:
    known = fields(pipeline)
    with pytest.raises(InputError) as refused:
        check_fields({word: "1"}, known)
    message = str(refused.value)
    names = suggested(message)
    nested = re.findall(r"\{(\w+): \{(\w+): …\}\}", message)
    assert bool(names) != bool(nested)
    for name in names:
        assert check_fields({name: "1"}, known) == {name: "1"}
    for section, key in nested:
        assert f"{section}.{key}" in KEYS[word]
        value = default_of(f"{section}.{key}")
        text = str(list(value)) if isinstance(value, tuple) else str(value)
        resolved = resolve_form({"settings": f"{{{section}: {{{key}: {text}}}}}"})
        assert getattr(getattr(resolved.config, section), key) == value


def test_no_word_has_two_meanings() -> None:
    assert not set(KEYS) & set(ABSENT)
    assert not set(KEYS) & set(MEANINGS)
    assert not (set(KEYS) - {"per_batch_size"}) & (LAST_WORDS - {"batch_size"})
    assert {key for keys in KEYS.values() for key in keys} <= set(known_keys())
