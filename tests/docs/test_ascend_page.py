"""The page docs/ascend.md has the versions, presets and commands of the code."""

from __future__ import annotations

import re
from pathlib import Path

from kubeyolo.ascend import IMAGE, RELEASES
from kubeyolo.export import onnx

TEXT = (Path(__file__).parents[2] / "docs" / "ascend.md").read_text(encoding="utf-8")


def test_the_table_of_versions_is_that_of_the_build() -> None:
    rows = re.findall(r"^\| (\d[\d.]+) \| (\S+) \| (\S+) \| `(\S+)`( \(read\))? \|", TEXT, re.MULTILINE)
    expected = [
        (each.mindspore, each.cann, each.driver, each.base_image("910b").removeprefix(f"{IMAGE}:"), "910b" in each.seen)
        for each in RELEASES.values()
    ]
    assert [(*row[:4], bool(row[4])) for row in rows] == expected


def test_the_opset_that_atc_must_accept_is_that_of_the_export() -> None:
    [opset] = re.findall(r"`model\.onnx` has opset (\d+)", TEXT)
    assert int(opset) == onnx.OPSET
