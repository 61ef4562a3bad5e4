"""The table of keys in docs/configuration.md is the schema's."""

from __future__ import annotations

from pathlib import Path

from kubeyolo.config import reference
from kubeyolo.config.load import known_keys

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_table_of_keys_is_current() -> None:
    page = PAGE.read_text(encoding="utf-8")
    table = page.partition(reference.BEGIN)[2].partition(reference.END)[0].strip()
    assert table == reference.reference_table().strip(), (
        "put the output of `python -m kubeyolo.config.reference` between the marks"
    )


def test_every_key_has_one_row_with_a_meaning() -> None:
    rows = [line.split(" | ") for line in reference.reference_table().splitlines()[2:]]
    assert [row[0].strip("| `") for row in rows] == list(known_keys())
    assert all(len(row) == 4 and len(row[3].strip("| ")) > 5 for row in rows)
