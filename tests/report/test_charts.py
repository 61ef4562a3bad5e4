"""Charts: same bytes for same values, colours of the page, no ids or style rules that affect the page."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from kubeyolo.report.charts import Mark, Series, averaged, bar_chart, density_chart, histogram, line_chart, smoothed


def curve_chart(name: str = "curve"):  # type: ignore[no-untyped-def]
    x = np.arange(50.0)
    return line_chart(name, "T", [Series("a", x, np.sin(x)), Series("b", x, x, 1)], x_label="step", label="words")


def test_same_values_give_the_same_bytes() -> None:
    assert curve_chart().svg == curve_chart().svg


def test_colours_are_variables_of_the_page() -> None:
    svg = str(curve_chart().svg)
    assert not re.search(r"#[0-9a-f]{6}", svg)
    assert set(re.findall(r"var\((--[\w-]+)\)", svg)) == {"--series-0", "--series-1", "--muted", "--line"}


def test_ids_have_a_prefix_and_are_used_and_style_rules_do_not_affect_the_page() -> None:
    svg = str(curve_chart("lossy").svg)
    ids = re.findall(r'\bid="([^"]+)"', svg)
    assert ids and all(name.startswith("lossy-") for name in ids)
    used = set(re.findall(r"url\(#([^)]+)\)", svg)) | set(re.findall(r'href="#([^"]+)"', svg))
    assert used == set(ids)
    assert "<style" not in svg and "metadata" not in svg and "font-family" not in svg


def test_chart_has_a_description_for_screen_readers() -> None:
    root = ElementTree.fromstring(str(curve_chart().svg))
    assert root.get("role") == "img" and root.get("aria-label") == "words"


def test_pointer_values_are_those_of_the_curves() -> None:
    hover = json.loads(curve_chart().hover)
    assert [row["name"] for row in hover["series"]] == ["a", "b"]
    assert hover["series"][1]["y"] == [float(value) for value in range(50)]
    left, top, right, bottom = hover["box"]
    assert 0 < left < right <= 1 and 0 <= top < bottom < 1


def test_long_curves_are_averaged_and_keep_their_ends() -> None:
    x = np.arange(100_001.0)
    short_x, short_y = averaged(x, 2 * x)
    assert len(short_x) == 400
    assert (short_x[0], short_x[-1], short_y[-1]) == (0.0, 100_000.0, 200_000.0)
    assert short_y[1:-1] == pytest.approx(2 * short_x[1:-1])
    chart = line_chart("long", "T", [Series("a", x, x % 7, smooth=True)], x_label="step", label="w")
    assert len(chart.svg) + len(chart.hover) < 60_000


def test_moving_average_keeps_lines_and_evens_noise() -> None:
    line = np.arange(200.0)
    assert smoothed(line) == pytest.approx(line)
    noise = np.random.default_rng(0).normal(0, 1, 3000)
    assert smoothed(noise)[200:-200].std() < 0.12


@pytest.mark.parametrize("values", [[], [float("nan")], [3.0], [0.0, 0.0], [1e-9, 2e-9], [-1.0, 5.0]])
def test_any_values_can_be_drawn(values: list[float]) -> None:
    x = list(range(len(values)))
    chart = line_chart("c", "T", [Series("a", x, values)], x_label="x", label="w", marks=[Mark(0.5, "here")])
    array = np.array([value for value in values if value == value])
    bars = histogram("h", "T", [("a", array)], np.linspace(0, 1, 5), x_label="x", label="w")
    positive = np.abs(array) + 1e-12
    density = density_chart("d", "T", positive, positive, label="w")
    for drawn in (chart, bars, density):
        assert ElementTree.fromstring(drawn.svg).tag.endswith("svg")
        assert not re.search(r"\b(nan|inf)\b", drawn.svg)


@pytest.mark.parametrize(
    ("values", "share", "ticks"),
    [
        ([5000.0, 2500.0, 0.0], 0.5, ["0", "1000", "2000", "3000", "4000", "5000"]),
        # On a scale that starts at 0.5: log(50 / 0.5) / log(5000 / 0.5).
        ([5000.0, 50.0, 0.0], 0.5, ["1", "10", "100", "1000", "10k"]),
    ],
)
def test_bars_of_a_wide_range_are_logarithmic_and_zero_has_none(
    values: list[float], share: float, ticks: list[str]
) -> None:
    svg = str(bar_chart("b", "T", ["x", "y", "z"], [("train", values)], x_label="boxes", label="w").svg)
    texts = re.findall(r">([^<>]+)</text>", svg)
    assert texts == [*ticks, "boxes", "x", "y", "z", *(f"{value:.0f}" for value in values)]
    bars = re.findall(r'class="data-0"><path d="M ([\d.]+) [\d.]+ +L ([\d.]+) ', svg)
    longest, middle, none = (float(end) - float(start) for start, end in bars)
    assert middle / longest == pytest.approx(share, abs=0.001) and none == 0


def test_names_are_escaped() -> None:
    chart = bar_chart("b", "T", ["<b>&"], [("t", [1.0])], x_label="x", label='"<i>')
    root = ElementTree.fromstring(str(chart.svg))
    assert root.get("aria-label") == '"<i>'
    texts = [element.text for element in root.iter("text")]
    assert "<b>&" in texts
    assert not list(root.iter("b")) and "<i>" not in chart.svg
