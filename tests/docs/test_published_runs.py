"""The table of published runs in docs/training.md has the runs, and their estimates, of the code."""

from __future__ import annotations

from pathlib import Path

from kubeyolo.estimate.published import PUBLISHED_RUNS

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
BEGIN, END = "<!-- begin of the published runs -->\n", "<!-- end of the published runs -->"


def table() -> str:
    rows = ["| source | device | model | devices x batch | pixels | images/s | estimate | error | |", "|---" * 9 + "|"]
    for run in PUBLISHED_RUNS:
        notes = ", ".join(filter(None, (run.note, "fitted" if run.is_fitted else "")))
        rows.append(
            f"| {run.source} | {run.kind} | `{run.model}` | {run.devices} x {run.per_batch_size} | "
            f"{run.image_size:.0f} | {run.images_per_second:.0f} | {run.estimate:.0f} | {100 * run.error:+.0f} % | "
            f"{notes} |"
        )
    return "\n".join(rows) + "\n"


def test_the_table_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0] == table()
