"""Pairs of a command line, and the names that are suggested for one that is not known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubeyolo.errors import InputError, split_pair, suggest
from kubeyolo.models.named_facts import model_names

keys = st.text(max_size=12).filter(lambda key: "=" not in key)


@given(keys.filter(str.strip), st.text(max_size=20))
def test_a_pair_is_split_at_its_first_equals_sign(key: str, value: str) -> None:
    assert split_pair(f"{key}={value}", "--set", "a=1") == (key.strip(), value)


@given(keys | st.text(" \t", max_size=3).map(lambda space: f"{space}=value"))
def test_a_text_without_a_key_or_an_equals_sign_is_shown_with_one_that_is_right(text: str) -> None:
    with pytest.raises(InputError) as refused:
        split_pair(text, "--min", "AP50=0.8")
    assert str(refused.value) == f"--min {text!r}: expected key=value, such as --min AP50=0.8"


@given(st.sampled_from(model_names()), st.data())
def test_a_model_with_a_slip_in_its_name_is_suggested(model: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(model) - 1))
    wrong = model[:place] + data.draw(st.sampled_from(["", "x", "-"])) + model[place + 1 :]
    names = [each for each in model_names() if each != wrong]
    said = suggest(wrong, names)
    assert said.startswith("; did you mean '") and said.endswith("'?")
    shown = said[len("; did you mean '") : -2].split("' or '")
    assert set(shown) <= set(names) and len(shown) <= 6
    longer = [each for each in names if each.startswith(wrong)]
    assert shown == sorted(longer, key=lambda each: (len(each), each))[:6] if longer else len(shown) == 1


@given(st.text("0123456789!?", min_size=6, max_size=12))
def test_of_a_name_that_is_like_none_all_are_listed(name: str) -> None:
    assert suggest(name, ["val", "train", "test"]) == "; known: test, train, val"
