"""The catalogue in docs/models.md has the facts of the models."""

from __future__ import annotations

from pathlib import Path

from kubeyolo.models.named_facts import model_facts, model_names

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- begin of the table -->\n", "<!-- end of the table -->"


def catalogue() -> str:
    rows = ["| model | parameters | multiply-adds | size | strides | anchors a level | loss | AP |", "|---" * 8 + "|"]
    for facts in map(model_facts, model_names()):
        best = max((result.ap for result in facts.published), default=None)
        cells = [
            f"`{facts.name}`",
            f"{facts.parameters:,}",
            f"{facts.multiply_adds / 1e9:.2f} G",
            str(facts.image_size),
            ", ".join(map(str, facts.strides)),
            str(facts.anchors_per_level),
            f"`{facts.loss}`",
            "" if best is None else f"{best:.3f}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def test_the_catalogue_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0] == catalogue()
