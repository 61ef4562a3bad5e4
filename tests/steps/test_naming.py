"""Names of runs: readable, the same for the same parameters, usable as a label."""

from __future__ import annotations

import re

import pytest

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
