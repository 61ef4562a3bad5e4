"""The index page of a run: a drawing of its pipeline, its main metrics, and links to all reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from kubeyolo.bundle import LEFT_OUT
from kubeyolo.errors import InputError, suggest
from kubeyolo.formats import DASH, duration
from kubeyolo.report.dag import Edges, draw_tall, draw_wide
from kubeyolo.report.formats import number3, setting, signed_points
from kubeyolo.report.page import Stat, fact_groups, render

Status = Literal["succeeded", "cached", "running", "failed", "skipped", "pending"]

_TONES: dict[str, str] = {
    "succeeded": "good",
    "cached": "good",
    "running": "busy",
    "failed": "bad",
    "skipped": "quiet-tone",
    "pending": "quiet-tone",
}


@dataclass(frozen=True)
class StepCard:
    """One step of a run: its status, its time in seconds, its report (a relative link), and its main values."""

    step: str
    status: Status
    seconds: float | None = None
    report: str | None = None
    values: Mapping[str, object] = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise InputError(
                f"step {self.step}: unknown status {self.status!r}{suggest(self.status, get_args(Status))}"
            )
        if self.report is not None and (":" in self.report or self.report.startswith(("/", "\\"))):
            raise InputError(f"step {self.step}: report {self.report!r} is not a relative link")

    @property
    def tone(self) -> str:
        """Return the CSS class of the status."""
        return _TONES[self.status]

    @property
    def time(self) -> str:
        """Return the duration in words."""
        if self.seconds is None or self.status in {"pending", "skipped"}:
            return self.status
        return duration(self.seconds)

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Return the values as they are shown."""
        return [(key, _value(value)) for key, value in self.values.items()]


def index_page(run_name: str, cards: Sequence[StepCard], facts: Mapping[str, Any], edges: Edges = ()) -> str:
    """Return the index page of a run.

    Args:
        run_name: Name of the run.
        cards: The steps, in the order of the pipeline.
        facts: The run's summary. ``evaluate`` (with AP, AP50), ``export.onnx.AP``, ``quantize.int8.AP`` and ``seconds``
            are shown as large numbers if they are present; ``model``, ``dataset`` (with digest), ``bundle`` and any
            other key are listed. ``warnings`` are at the top.
        edges: Pairs of steps; the second step waits for the first.
    """
    status = _overall(cards)
    known = {"evaluate", "export", "quantize", "seconds", "warnings"}
    rest = {key: value for key, value in facts.items() if key not in known}
    evaluate = facts.get("evaluate", {})
    groups = fact_groups(rest, "Run")
    if evaluate:
        groups.append(("COCO metrics", [(key, _value(value)) for key, value in evaluate.items()]))
    return render(
        "index.html",
        kind="run",
        title=run_name,
        lead=_lead(facts),
        warnings=facts.get("warnings") or (),
        status=status,
        tone=_TONES[status],
        stats=_stats(cards, facts),
        wide=draw_wide(cards, edges),
        tall=draw_tall(cards, edges),
        cards=cards,
        groups=groups,
    )


def _overall(cards: Sequence[StepCard]) -> str:
    """Return the status of the run: the most urgent status of its steps."""
    statuses = {card.status for card in cards}
    urgent = [status for status in ("failed", "running", "pending") if status in statuses]
    return next(iter(urgent), "succeeded" if statuses else "pending")


def _lead(facts: Mapping[str, Any]) -> str:
    name = facts.get("dataset", {}).get("name")
    return " ".join([str(facts.get("model") or ""), f"on {name}" if name else ""]).strip()


def _stats(cards: Sequence[StepCard], facts: Mapping[str, Any]) -> list[Stat]:
    evaluate = facts.get("evaluate", {})
    stats = [
        Stat("AP", number3(evaluate.get("AP")), "IoU .50 to .95"),
        Stat("AP50", number3(evaluate.get("AP50")), "IoU .50"),
    ]
    for label, value in (
        ("AP in ONNX", facts.get("export", {}).get("onnx", {}).get("AP")),
        ("AP in int8", facts.get("quantize", {}).get("int8", {}).get("AP")),
    ):
        if value is not None:
            change = "" if evaluate.get("AP") is None else f"{signed_points(value - evaluate['AP'])} points"
            stats.append(Stat(label, number3(value), change))
    if facts.get("quantize", {}).get(LEFT_OUT):
        stats.append(Stat("int8", "left out", "it misses a limit; see the warnings"))
    spent = [card.seconds for card in cards if card.seconds is not None]
    stats.append(Stat("Time", duration(sum(spent)) if spent else DASH, _count_note(cards)))
    return stats


def _count_note(cards: Sequence[StepCard]) -> str:
    cached = sum(1 for card in cards if card.status == "cached")
    return f"{len(cards)} steps, {cached} from the cache" if cached else f"{len(cards)} steps"


def _value(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) and 0 <= value <= 1 else setting(value)
