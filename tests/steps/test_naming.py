"""Names of runs: readable, the same for the same parameters, usable as a label."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kubeyolo.config.load import preset_names
from kubeyolo.steps.naming import dataset_label, run_name


def test_a_name_has_model_data_set_and_digest() -> None:
    assert re.fullmatch(r"yolov5n-r7-bccd-[0-9a-f]{8}", run_name("yolov5n-r7", "/data/bccd", {"a": 1}))


def test_the_same_parameters_in_any_order_give_the_same_name() -> None:
    one = run_name("yolov5s", "/data/bccd", {"a": 1, "b": {"c": 2, "d": 3}})
    assert one == run_name("yolov5s", "/data/bccd", {"b": {"d": 3, "c": 2}, "a": 1})
    assert one != run_name("yolov5s", "/data/bccd", {"a": 1, "b": {"c": 2, "d": 4}})


@pytest.mark.parametrize(
    ("data", "label"),
    [
        ("/data/BCCD v2/", "bccd-v2"),
        ("minio://bucket/sets/coco_2017", "coco-2017"),
        ("minio://bucket", "bucket"),
        ("file:///data/a%20b", "a-20b"),
        ("/", "data"),
    ],
)
def test_the_label_of_a_data_set_is_its_last_part(data: str, label: str) -> None:
    assert dataset_label(data) == label


def test_a_name_is_short_enough_for_a_label() -> None:
    name = run_name("yolov5n-r7", "/data/" + "long-" * 40, {})
    assert len(name) <= 63
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)


parameters = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
forms = st.dictionaries(st.text(max_size=5), parameters, max_size=5)
models = st.sampled_from(preset_names())


@given(models, st.text(max_size=90) | st.text("a-_/", max_size=90), forms)
def test_any_data_set_gives_a_name_that_kubernetes_takes(model: str, data: str, form: dict[str, Any]) -> None:
    name = run_name(model, data, form)
    assert re.fullmatch(rf"{model}-[a-z0-9]([a-z0-9-]*[a-z0-9])?-[0-9a-f]{{8}}", name) and len(name) <= 63
    assert "--" not in name
    label = dataset_label(data)
    assert name.startswith(f"{model}-{label[:20].rstrip('-')}")
    assert dataset_label(label) == label


@given(models, forms, st.randoms())
def test_a_name_depends_on_what_the_parameters_are_alone(model: str, form: dict[str, Any], random: Any) -> None:
    items = list(form.items())
    random.shuffle(items)
    assert run_name(model, "/data/bccd", dict(items)) == run_name(model, "minio://b/bccd/", form)


@given(models, forms, forms)
def test_other_parameters_give_another_name(model: str, form: dict[str, Any], other: dict[str, Any]) -> None:
    assume(form != other)
    assert run_name(model, "/data/bccd", form) != run_name(model, "/data/bccd", other)
