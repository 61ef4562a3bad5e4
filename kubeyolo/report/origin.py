"""Where the weights of a training came from, as facts for reports and the model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MOST_NAMES = 12


def start_facts(start: Mapping[str, Any]) -> dict[str, str]:
    """Return the detector that a training started from, its origin, and the classes that it took over.

    Args:
        start: ``started_from`` in the configuration of the trained bundle; empty if there is none.
    """
    if not start:
        return {}
    classes = start.get("classes", {})
    taken, new = list(classes.get("taken", ())), list(classes.get("new", ()))
    facts = {"started from": str(start.get("bundle", ""))}
    facts |= {"classes taken over": f"{len(taken)} of {len(taken) + len(new)}{_listed(taken)}"}
    facts |= {"new classes": f"{len(new)}{_listed(new)}"} if new else {}
    return facts | origin_facts(start)


def origin_facts(start: Mapping[str, Any]) -> dict[str, str]:
    """Return the first origin of weights: the file that was imported, its licence, and the data sets since then.

    Args:
        start: A record of a start, which may contain the record of an earlier start.
    """
    facts: dict[str, str] = {}
    datasets: list[str] = []
    each: Mapping[str, Any] = start
    while each:
        datasets += [str(each["dataset"])] if each.get("dataset") else []
        if imported := each.get("imported"):
            facts["weights file"] = f"{imported.get('file', '')}, sha256 {imported.get('sha256', '')}"
            facts |= {"licence of the weights": str(imported["licence"])} if imported.get("licence") else {}
        each = each.get("started_from") or {}
    return facts | ({"trained before on": ", ".join(datasets)} if datasets else {})


def _listed(names: list[str]) -> str:
    if not names:
        return ""
    return ": " + ", ".join(map(str, names[:_MOST_NAMES])) + (", …" if len(names) > _MOST_NAMES else "")
