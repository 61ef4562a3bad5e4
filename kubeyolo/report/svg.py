"""Converts a matplotlib figure to a small inline SVG with the colours of the page."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.text import Text

_XLINK = "{http://www.w3.org/1999/xlink}href"
_NUMBER = re.compile(r"-?\d+\.\d+")
_COLOR = re.compile(r"#[0-9a-f]{6}")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_FONT_FAMILY = re.compile(r"font-family:[^;\"]*;?\s*")

INK = "#000001"
MUTED = "#000002"
LINE = "#000003"
ACCENT = "#000004"
SERIES = tuple(f"#0001{index:02x}" for index in range(8))
"""Placeholder colours for matplotlib; each becomes a CSS variable of the page, so one SVG works in light and dark."""

VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    ACCENT: "var(--accent)",
    **{color: f"var(--series-{index})" for index, color in enumerate(SERIES)},
}


def series_variable(index: int) -> str:
    """Return the CSS colour of the index-th series; colours repeat after eight."""
    return VARIABLES[SERIES[index % len(SERIES)]]


def inline_svg(figure: Figure, name: str, label: str) -> Markup:
    """Draw a figure as inline SVG: the same bytes for the same figure.

    Args:
        figure: A figure made with the object interface at 72 dpi.
        name: Prefix of the ids inside, unique on the page.
        label: A description of the chart for screen readers.
    """
    # Names of classes may contain dollar signs and backslashes, which are not formulas.
    for text_of_figure in figure.findobj(Text):
        text_of_figure.set_parse_math(False)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "text.parse_math": False}):
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ElementTree.fromstring(text.getvalue())
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("role", "img")
    root.set("aria-label", label)
    _clean(root, name, _referenced(root))
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _referenced(root: ElementTree.Element) -> set[str]:
    """Return the ids that elements of the drawing refer to."""
    ids: set[str] = set()
    for element in root.iter():
        for value in element.attrib.values():
            ids.update(_REFERENCE.findall(value))
        if _XLINK in element.attrib:
            ids.add(element.attrib[_XLINK].lstrip("#"))
    return ids


def _clean(element: ElementTree.Element, name: str, referenced: set[str]) -> None:
    """Drop namespaces, unused ids and matplotlib's style rules, which would affect the whole page; shorten numbers."""
    element.tag = element.tag.rpartition("}")[2]
    element.tail = None
    if element.tag not in {"text", "tspan"}:
        element.text = None
    attributes = dict(element.attrib)
    element.attrib.clear()
    for key, value in attributes.items():
        if key == "id":
            # Our own ids (gid "data-...") become classes, by which tests and scripts find the data.
            if value.startswith("data-"):
                element.set("class", value)
            elif value in referenced:
                element.set("id", f"{name}-{value}")
        elif key == _XLINK:
            element.set("href", f"#{name}-{value.lstrip('#')}")
        else:
            element.set(key, _rewrite(value, name))
    for child in list(element):
        tag = child.tag.rpartition("}")[2]
        if tag in {"style", "metadata"}:
            element.remove(child)
            continue
        _clean(child, name, referenced)
        if child.tag in {"defs", "g"} and not len(child):
            element.remove(child)


def _rewrite(value: str, name: str) -> str:
    value = _REFERENCE.sub(lambda match: f"url(#{name}-{match.group(1)})", value)
    value = _COLOR.sub(lambda match: VARIABLES.get(match.group(0), match.group(0)), value)
    value = _FONT_FAMILY.sub("", value)
    value = _NUMBER.sub(lambda match: f"{float(match.group(0)):.2f}".rstrip("0").rstrip("."), value)
    return value.replace("\n", "").strip()
