"""Renders templates to self-contained pages; a policy in each page forbids the browser to load anything else."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kubeyolo import __version__
from kubeyolo.evaluation.limits import Verdict
from kubeyolo.report.formats import integer, label_of, number3, setting, signed_points

_CHECKS = re.compile(r"<!-- checks -->.*?<!-- /checks -->", re.DOTALL)
_ADDRESS = re.compile(r"^(?:[a-z0-9]+://|/|[0-9a-f]{12,}$|sha256:)")


@dataclass(frozen=True)
class Stat:
    """One of the large numbers at the top of a page."""

    label: str
    value: str
    note: str = ""


def render(template: str, *, kind: str, title: str, lead: str = "", **context: object) -> str:
    """Return a page as HTML.

    Args:
        template: File name in the templates folder.
        kind: Subject of the page, shown above the title.
        title: Heading of the page.
        lead: A sentence under the heading.
        context: The other variables of the template.
    """
    environment = _environment()
    script = _source("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return environment.get_template(template).render(
        kind=kind,
        title=title,
        lead=lead,
        version=__version__,
        style=Markup(_source("style.css")),
        script=Markup(script),
        script_digest=digest,
        **context,
    )


def with_verdict(html: str, verdict: Verdict) -> str:
    """Replace the checks in a page of evaluate with the checks of a verdict; pages of old versions stay unchanged."""
    parts: Any = _environment().get_template("parts.html").module
    checks = str(parts.checks(verdict.checks)).strip()
    return _CHECKS.sub(lambda _: checks, html, count=1)


def fact_rows(facts: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return facts as rows of words and values."""
    return [(label_of(str(key)), setting(value)) for key, value in facts.items()]


def fact_groups(facts: Mapping[str, object], first: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return facts in groups: plain values under ``first``, and each nested mapping under its own key."""
    plain = {key: value for key, value in facts.items() if not isinstance(value, Mapping)}
    groups = [(first, fact_rows(plain))] if plain else []
    for key, value in facts.items():
        if isinstance(value, Mapping) and value:
            name = label_of(str(key))
            groups.append((name[:1].upper() + name[1:], fact_rows(value)))
    return groups


def _tone(difference: float | None) -> str:
    """Return the CSS class of a difference: ``up``, ``down``, or empty if the difference rounds to zero."""
    if difference is None or abs(difference) < 5e-5:
        return ""
    return "up" if difference > 0 else "down"


def _share(value: float | None) -> str:
    return f"{min(1.0, max(0.0, value or 0.0)):.4f}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("kubeyolo.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {"integer": integer, "number3": number3, "share": _share, "signed_points": signed_points, "tone": _tone}
    environment.filters |= filters
    environment.tests["mono"] = lambda value: bool(_ADDRESS.match(str(value)))
    return environment


@cache
def _source(name: str) -> str:
    loader = _environment().loader
    assert loader is not None
    return loader.get_source(_environment(), name)[0]
