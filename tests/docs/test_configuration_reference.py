"""The table of keys in docs/configuration.md; `make lint` checks that the page has the current table."""

from __future__ import annotations

from kubeyolo.config.load import known_keys
from pipelines.tables import setting_table


def test_every_key_has_one_row_with_a_meaning() -> None:
    rows = [line.split(" | ") for line in setting_table().splitlines()[2:]]
    assert [row[0].strip("| `") for row in rows] == list(known_keys())
    assert all(len(row) == 4 and len(row[3].strip("| ")) > 5 for row in rows)
