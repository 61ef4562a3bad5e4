"""The reports in a real browser: light and dark, wide and narrow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.evaluation.error_kinds import KINDS
from kubeyolo.evaluation.results import COCO_NUMBERS
from tests.report.conftest import error_analysis

HOSTILE = "<script>alert(1)</script>"
TRAINED = ("pretrain_backbone", "train", "evaluate", "export_model", "quantize", "publish")
PAGES = ("index", "configure", "validate_dataset", "errors", *TRAINED, "compare", "benchmark")

# The least contrast (WCAG 2) between a text of the page and its background, and that text.
CONTRAST = """() => {
  const rgb = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const luminance = (c) => c.slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    const rect = element instanceof SVGElement && element.parentElement.querySelector(":scope > rect");
    if (rect && getComputedStyle(rect).fill !== "none") return rgb(getComputedStyle(rect).fill);
    for (let at = element; at; at = at.parentElement) {
      const color = rgb(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const worst = { ratio: 21, text: "" };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest("script,style,title")) continue;
    const style = getComputedStyle(element);
    const ink = luminance(rgb(element instanceof SVGElement ? style.fill : style.color));
    const ground = luminance(behind(element));
    const ratio = (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
    if (ratio < worst.ratio) Object.assign(worst, { ratio, text: walker.currentNode.data.trim() });
  }
  return worst;
}"""

# For each image: its rectangle, and the rectangles of its boxes.
BOXES = """() => [...document.querySelectorAll(".frame")].map((frame) => {
  const edges = (e) => { const r = e.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; };
  const image = frame.querySelector("img");
  return {
    loaded: image.complete && image.naturalWidth > 0, longest: Math.max(image.naturalWidth, image.naturalHeight),
    image: edges(image), boxes: [...frame.querySelectorAll(".box .edge")].map(edges),
    dashes: [...frame.querySelectorAll(".box .edge")].map((e) => getComputedStyle(e).strokeDasharray),
    strokes: [...frame.querySelectorAll(".box .edge")].map((e) => getComputedStyle(e).stroke),
    titles: [...frame.querySelectorAll(".box title")].map((e) => e.textContent), alt: image.alt };
})"""


def place(folder: Path, name: str) -> Path:
    return folder / "index.html" if name == "index" else folder / "reports" / f"{name}.html"


@pytest.mark.parametrize("name", PAGES)
def test_every_text_has_contrast_in_light_and_dark(run_folder: Path, open_page: Any, name: str) -> None:
    with open_page(place(run_folder, name)) as page:
        page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            worst = page.evaluate(CONTRAST)
            assert worst["ratio"] >= 4.5, (scheme, worst)


@pytest.mark.parametrize("name", PAGES)
def test_dark_mode_changes_page_text_and_charts_but_print_stays_light(
    run_folder: Path, open_page: Any, name: str
) -> None:
    colors = """() => {
      const body = getComputedStyle(document.body);
      const text = document.querySelector(".chart svg text, .dag svg text");
      const line = document.querySelector(".chart svg [class^='data-'] path, .wire");
      return [body.backgroundColor, body.color, text && getComputedStyle(text).fill,
              line && getComputedStyle(line).stroke + getComputedStyle(line).fill];
    }"""
    with open_page(place(run_folder, name)) as page:
        light = page.evaluate(colors)
        page.emulate_media(color_scheme="dark")
        dark = page.evaluate(colors)
        page.emulate_media(color_scheme="dark", media="print")
        printed = page.evaluate(colors)
    assert printed == light
    changed = [before != after for before, after in zip(light, dark, strict=True) if before is not None]
    assert all(changed), (light, dark)
    assert len(changed) == (2 if name in {"configure", "export_model", "publish"} else 4)


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_does_not_scroll_sideways(run_folder: Path, open_page: Any, name: str) -> None:
    with open_page(place(run_folder, name), width=360) as page:
        page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("name", PAGES)
def test_page_is_well_formed_for_assistive_technology(run_folder: Path, open_page: Any, name: str) -> None:
    with open_page(place(run_folder, name)) as page:
        found = page.evaluate(
            """() => ({
              lang: document.documentElement.lang, h1: document.querySelectorAll("h1").length,
              twice: [...document.querySelectorAll("[id]")].map((e) => e.id)
                .filter((id, i, all) => all.indexOf(id) !== i),
              noAlt: [...document.images].filter((e) => !e.alt).length,
              noLabel: [...document.querySelectorAll("svg[role=img]")].filter((e) => !e.ariaLabel).length,
              noScope: [...document.querySelectorAll("th")].filter((e) => !e.scope).length,
              unnamed: [...document.querySelectorAll("section")]
                .filter((e) => !document.getElementById(e.getAttribute("aria-labelledby"))).length })"""
        )
    assert found == {"lang": "en", "h1": 1, "twice": [], "noAlt": 0, "noLabel": 0, "noScope": 0, "unnamed": 0}


@pytest.mark.parametrize("name", PAGES)
def test_page_loads_nothing_and_is_small(run_folder: Path, name: str) -> None:
    html = place(run_folder, name).read_text()
    assert len(html) < 3_000_000
    sources = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", html)
    allowed = re.compile(r"data:|#|reports/[a-z_]+\.html$")
    assert [source for source in sources if not allowed.match(source)] == []
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", html)
    assert "default-src 'none'" in html


def test_all_twelve_numbers_are_shown(run_folder: Path, open_page: Any) -> None:
    with open_page(place(run_folder, "evaluate")) as page:
        rows = page.locator("#coco-numbers tbody tr")
        assert rows.count() == 12
        for index, number in enumerate(COCO_NUMBERS):
            row = rows.nth(index)
            assert row.is_visible()
            shown = "–" if number.key == "APs" else f"{0.9 - 0.0517 * index:.3f}"
            cells = row.locator("th, td").all_inner_texts()
            assert cells[0] == number.key
            assert cells[-1] == shown
            words = " ".join(cells[1].split())
            assert words.startswith("Average Precision (AP)" if number.kind == "AP" else "Average Recall (AR)")
            assert f"IoU={number.iou} " in words and f"{number.area} |" in words and f"{number.max_det} ]" in words


def test_quantization_shows_both_networks_and_the_gate(run_folder: Path, open_page: Any) -> None:
    with open_page(place(run_folder, "quantize")) as page:
        rows = page.locator("#coco-numbers tbody tr")
        cells = [rows.nth(index).locator("td.n").all_inner_texts() for index in range(12)]
        assert rows.count() == 12
        assert cells[0] == ["0.900", "0.896", "−0.42"]
        assert cells[3] == ["–", "–", "–"]
        assert page.locator("#gate-table .badge").all_inner_texts() == ["passed"] * 3
        gate = page.locator("#gate-table").inner_text()
        assert "0.42" in gate and "58 of 60 convolutions are quantized (96.7 %)" in gate and "0.300" in gate
        assert "passes the gate" in page.locator(".verdict").inner_text()


@pytest.mark.parametrize(
    ("name", "chart", "curves", "points"),
    [
        ("train", "loss-total", 1, 60),
        ("train", "loss-parts", 3, 60),
        ("train", "learning-rate", 1, 2),
        ("train", "speed", 1, 60),
        ("train", "validation-ap", 2, 5),
        ("train", "validation-ap-classes", 3, 5),
        ("pretrain_backbone", "pretraining-loss", 1, 60),
        ("pretrain_backbone", "pretraining-accuracy", 1, 60),
        ("evaluate", "precision-recall", 2, 30),
        ("errors", "class-f1", 3, 90),
        ("errors", "reliability", 2, 2),
    ],
)
def test_curves_are_drawn(run_folder: Path, open_page: Any, name: str, chart: str, curves: int, points: int) -> None:
    with open_page(place(run_folder, name)) as page:
        drawn = page.evaluate(
            """(chart) => [...document.querySelectorAll(`#${chart} svg [class^='data-']:not(.data-mark)`)].map((g) => {
              const path = g.querySelector("path"), box = path.getBoundingClientRect();
              return [path.getAttribute("d").split("L").length, box.width, box.height, getComputedStyle(path).stroke];
            })""",
            chart,
        )
        marks = page.locator(f"#{chart} .data-mark").count()
    assert len(drawn) == curves
    for count, width, height, stroke in drawn:
        assert count >= points
        assert width > 200 and height > 20
        assert stroke.startswith("rgb")
    # Two resumptions over steps, the best epoch over epochs.
    assert marks == (0 if name != "train" else 1 if chart.startswith("validation") else 2)


@pytest.mark.parametrize("width", [1180, 420])
def test_batches_are_shown_as_wide_as_the_page(run_folder: Path, open_page: Any, width: int) -> None:
    with open_page(place(run_folder, "train"), width=width) as page:
        pictures = page.locator("img.batch")
        assert pictures.count() == 2
        box, sizes = pictures.first.bounding_box(), "(image) => [image.naturalWidth, image.naturalHeight]"
        assert pictures.first.evaluate(sizes) == [984, 488]
        assert min(width - 60, 1000) <= box["width"] <= width - 30
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_label_of_the_best_epoch_and_labels_of_near_marks_are_inside_the_chart_and_apart(
    run_folder: Path, open_page: Any
) -> None:
    boxes = """(chart) => {
      const svg = document.querySelector(`#${chart} svg`), plot = svg.getBoundingClientRect();
      return [...svg.querySelectorAll("text")].filter((text) => /resumed|best/.test(text.textContent)).map((text) => {
        const box = text.getBoundingClientRect(), top = box.top - plot.top, bottom = box.bottom - plot.top;
        return [text.textContent, box.left - plot.left, top, plot.right - box.right, bottom];
      });
    }"""
    with open_page(place(run_folder, "train")) as page:
        ((best, left, _, right, _),) = page.evaluate(boxes, "validation-ap")
        assert best == "best: epoch 4" and left > 100 and right > 0
        first, second = page.evaluate(boxes, "loss-total")
        assert [first[0], second[0]] == ["resumed at 100", "resumed at 200"]
        assert second[2] >= first[4] - 2


def test_histograms_of_the_data_set_are_drawn(run_folder: Path, open_page: Any) -> None:
    with open_page(place(run_folder, "validate_dataset")) as page:
        for chart in ("box-sizes", "aspect-ratios", "boxes-per-image"):
            for index in (0, 1):
                box = page.locator(f"#{chart} .data-{index} path").bounding_box()
                assert box["width"] > 150 and box["height"] > 40, chart
        assert page.locator("#box-shapes [class^='data-'] path").count() >= 1
        assert page.locator("#class-histogram").bounding_box()["height"] > 100
        cells = page.locator("section:has(#splits) tbody tr").nth(0).locator("td").all_inner_texts()
        assert cells[0] == "40" and cells[2] == "1" and cells[3] == "1"


@pytest.mark.parametrize(("name", "images"), [("validate_dataset", 2), ("evaluate", 2)])
@pytest.mark.parametrize("width", [1180, 390])
def test_boxes_lie_on_their_image(run_folder: Path, open_page: Any, name: str, images: int, width: int) -> None:
    with open_page(place(run_folder, name), width=width) as page:
        frames = page.evaluate(BOXES)
    assert len(frames) == images
    for frame in frames:
        left, top, right, bottom = frame["image"]
        assert frame["loaded"] and frame["longest"] == 480 and right - left > 100
        assert len(frame["boxes"]) == 4
        for x1, y1, x2, y2 in frame["boxes"]:
            assert x2 - x1 > 5 and y2 - y1 > 5
            assert x1 >= left - 2 and y1 >= top - 2 and x2 <= right + 2 and y2 <= bottom + 2
        # The largest box is drawn first: (30, 40, 330, 300) of 600 × 400 pixels.
        scale = (right - left) / 600
        largest = [(value - origin) / scale for value, origin in zip(frame["boxes"][0], [left, top] * 2, strict=True)]
        assert largest == pytest.approx([30, 40, 330, 300], abs=6)
        assert len(set(frame["strokes"])) == 3
        assert HOSTILE in frame["alt"]


def test_crowd_boxes_are_dashed_and_detections_have_scores(run_folder: Path, open_page: Any) -> None:
    with open_page(place(run_folder, "evaluate")) as page:
        truth, found = page.evaluate(BOXES)
    assert sorted(dash != "none" for dash in truth["dashes"]) == [False, False, False, True]
    assert f"{HOSTILE} (crowd)" in truth["titles"]
    assert all(dash == "none" for dash in found["dashes"])
    assert all(title.endswith(" 0.87") for title in found["titles"])


@pytest.mark.parametrize("name", ["configure", "validate_dataset", "evaluate", "errors", "publish", "index"])
def test_hostile_names_are_text(run_folder: Path, open_page: Any, name: str) -> None:
    with open_page(place(run_folder, name)) as page:
        assert page.locator("script").count() == 1
        assert page.get_by_text(HOSTILE).first.is_visible()


def test_the_configuration_shows_what_differs_and_every_setting_with_its_origin(
    run_folder: Path, open_page: Any
) -> None:
    with open_page(place(run_folder, "configure")) as page:
        changed = [row.inner_text().split("\t") for row in page.locator("#changed-table tbody tr").all()]
        every = page.locator("section:has(#settings) tbody tr")
        rows = [row.inner_text().split("\t") for row in every.all()]
        text = page.locator("main").inner_text()
    assert changed == [
        ["train.max_epoch", "10", "300", "the field max_epoch"],
        ["pretrain.data", HOSTILE, "–", f"the field settings {HOSTILE}"],
    ]
    assert [row[0] for row in rows] == ["model", "max_epoch", "lr", "data"]
    assert rows[2] == ["lr", "0.01", "the preset yolov5n-r7"]
    for shown in ("about 3 h on 2 cores", "the data was read", "118\u202f287", "detector-training"):
        assert shown in text, shown


def test_a_click_sorts_the_classes(run_folder: Path, open_page: Any) -> None:
    with open_page(place(run_folder, "evaluate")) as page:
        table = page.locator("#per-class")
        names = table.locator("tbody th")
        table.get_by_role("button", name="Boxes").click()
        assert names.all_inner_texts() == ["ring", "disc", HOSTILE]
        table.get_by_role("button", name="Boxes").click()
        assert names.all_inner_texts() == [HOSTILE, "disc", "ring"]
        table.get_by_role("button", name="Class").click()
        assert names.all_inner_texts() == [HOSTILE, "disc", "ring"]
        assert table.locator("[aria-sort]").count() == 1


def test_the_pointer_shows_values(run_folder: Path, open_page: Any) -> None:
    with open_page(place(run_folder, "train")) as page:
        plot = page.locator("#validation-ap .plot")
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        page.mouse.move(box["x"] + 0.93 * box["width"], box["y"] + 0.5 * box["height"])
        text = plot.locator(".tip").inner_text()
        assert text.split("\n") == ["epoch 5", "AP 0.3765", "AP50 0.6765"]
        page.mouse.move(0, 0)
        assert not plot.locator(".tip").is_visible()


def test_report_works_in_a_sandboxed_frame(run_folder: Path, open_page: Any, tmp_path: Path) -> None:
    html = place(run_folder, "errors").read_text().replace("&", "&amp;").replace('"', "&quot;")
    outer = tmp_path / "frame.html"
    outer.write_text(
        '<!doctype html><link rel="icon" href="data:,">'
        f'<iframe sandbox="allow-scripts" style="width:1100px;height:800px" srcdoc="{html}"></iframe>'
    )
    with open_page(outer) as page:
        frame = page.frame_locator("iframe")
        frame.locator("#per-class").get_by_role("button", name="Boxes").click()
        assert frame.locator("#per-class tbody th").all_inner_texts() == ["ring", "disc", HOSTILE]
        assert frame.locator("#precision-recall svg").bounding_box()["width"] > 200
        frame.locator("button.zoom").first.click()
        assert frame.locator("figure.large img").first.bounding_box()["width"] > 600


def test_the_errors_of_an_evaluation_are_listed(run_folder: Path, open_page: Any) -> None:
    analysis = error_analysis()
    with open_page(place(run_folder, "errors")) as page:
        kinds = page.locator("#error-kinds tbody th").all_inner_texts()
        cells = page.locator("#confusion-matrix tbody tr").nth(0).locator("td")
        shades = cells.evaluate_all("(all) => all.map((cell) => getComputedStyle(cell).backgroundImage)")
        heads = page.locator("#per-class thead th").all_inner_texts()
        suspect = page.locator("#suspect-list tbody tr").first.locator("th, td").all_inner_texts()
        families = page.locator("#slices-brightness tbody tr").count()
    assert kinds == [*KINDS, "all false positives", "all false negatives"]
    assert shades[0] != shades[1] != shades[2]
    assert [head.strip() for head in heads[5:]] == ["Best threshold", "Precision", "Recall", "F1"]
    first, matches = analysis.suspects[0], analysis.matches
    classes = [analysis.classes[matches.index.box_class[first.box]], analysis.classes[matches.label[first.detection]]]
    shown = [matches.index.file_name[first.image], classes[0], f"{classes[1]} {matches.score[first.detection]:.2f}"]
    assert suspect == ["1", "swapped class", *shown, f"{first.suspicion:.3f}"]
    assert families == 3


@pytest.mark.parametrize("width", [1180, 360])
@pytest.mark.parametrize("clicked", ["button.zoom", ".frame"])
def test_a_click_enlarges_a_picture_in_its_place(run_folder: Path, open_page: Any, width: int, clicked: str) -> None:
    with open_page(place(run_folder, "errors"), width=width) as page:
        figure, button = page.locator("#worst ~ .zooms figure").first, page.locator("button.zoom").first
        before = figure.locator("img").bounding_box()["width"]
        figure.locator(clicked).click()
        after = figure.locator("img").bounding_box()["width"]
        assert after > 1.5 * before and button.get_attribute("aria-expanded") == "true"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        strokes = figure.locator(".edge").evaluate_all("(all) => all.map((e) => getComputedStyle(e).strokeDasharray)")
        assert sum(dash != "none" for dash in strokes) == 1
        figure.locator(clicked).click()
        assert figure.locator("img").bounding_box()["width"] == before


@pytest.mark.parametrize("width", [1180, 390])
def test_index_draws_the_run_and_its_links_resolve(run_folder: Path, open_page: Any, width: int) -> None:
    with open_page(place(run_folder, "index"), width=width) as page:
        links = page.evaluate(
            "[...document.querySelectorAll('a')].map((e) => new URL(e.getAttribute('href'), document.baseURI).pathname)"
        )
        nodes = page.locator(".dag svg:visible .node")
        status = {node.get_attribute("data-step"): node.get_attribute("data-status") for node in nodes.all()}
        strokes = {
            node.get_attribute("data-step"): node.locator("rect").evaluate("(e) => getComputedStyle(e).stroke")
            for node in nodes.all()
        }
        wires = page.locator(".dag svg:visible .wire").count()
        fits = page.evaluate(
            """[...document.querySelectorAll(".dag .node")].filter((e) => e.checkVisibility()).every((node) => {
              const outer = node.querySelector("rect").getBoundingClientRect();
              return [...node.querySelectorAll("text")].every((t) => t.getBoundingClientRect().right <= outer.right);
            })"""
        )
        text = page.locator("main").inner_text()
        run_status = page.locator("#run-status").inner_text()
    assert status == {
        "configure": "succeeded",
        "validate_dataset": "cached",
        "pretrain_backbone": "skipped",
        "train": "succeeded",
        "evaluate": "succeeded",
        "export_model": "succeeded",
        "quantize": "failed",
        "publish": "pending",
    }
    assert strokes["train"] != strokes["quantize"] != strokes["publish"]
    assert wires == len(CompiledPipeline.named().edges) == 8 and fits and run_status == "failed"
    assert len(links) == 18 and all(Path(link).is_file() for link in links)
    for shown in ("0.900", "0.848", "0.896", "−0.42 points", "13 min 32 s", "ab" * 32, "minio://models/yolov5n-r7/1"):
        assert shown in text, shown
