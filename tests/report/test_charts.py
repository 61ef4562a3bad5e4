"""Charts: same bytes for same values, colours of the page, nothing that leaks out of them."""

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
    assert "var(--series-0)" in svg and "var(--series-1)" in svg and "var(--muted)" in svg


def test_ids_are_prefixed_used_and_rules_do_not_reach_the_page() -> None:
    svg = str(curve_chart("lossy").svg)
    ids = re.findall(r'\bid="([^"]+)"', svg)
    assert ids and all(name.startswith("lossy-") for name in ids)
    used = set(re.findall(r"url\(#([^)]+)\)", svg)) | set(re.findall(r'href="#([^"]+)"', svg))
    assert used == set(ids)
    assert "<style" not in svg and "metadata" not in svg and "font-family" not in svg


def test_chart_says_in_words_what_it_shows() -> None:
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
    assert chart.svg.startswith("<svg")
    array = np.array([value for value in values if value == value])
    assert histogram("h", "T", [("a", array)], np.linspace(0, 1, 5), x_label="x", label="w").svg.startswith("<svg")
    positive = np.abs(array) + 1e-12
    assert density_chart("d", "T", positive, positive, label="w").svg.startswith("<svg")


def test_bars_of_a_wide_range_are_logarithmic_and_show_zero() -> None:
    chart = bar_chart("b", "T", ["x", "y"], [("train", [5000.0, 0.0])], x_label="boxes", label="w")
    texts = re.findall(r">([^<>]+)</text>", str(chart.svg))
    assert "5000" in texts and "0" in texts


def test_names_are_escaped() -> None:
    chart = bar_chart("b", "T", ["<b>&"], [("t", [1.0])], x_label="x", label='"<i>')
    assert "&lt;b&gt;&amp;" in chart.svg and "<b>" not in chart.svg and "<i>" not in chart.svg
