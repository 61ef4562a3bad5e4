from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from kubeyolo.errors import InputError
from kubeyolo.prediction.drawing import Painter, color_of, drawable, enlargement, letter_size
from kubeyolo.prediction.fonts import Fonts, clusters_of

NOWHERE = "\U000f1234"
"""A character for private use, which fonts of machines do not have."""


def rgb(color: str) -> np.ndarray:
    return np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)])


def drawn(name: str, width: int, height: int, *boxes: tuple[float, ...], fonts: Fonts | None = None):
    painter = Painter([name], fonts or Fonts())
    rows = np.array([(*box, 0.91, 0) for box in boxes], np.float32).reshape(-1, 6)
    return np.asarray(painter.draw(np.full((height, width, 3), 110, np.uint8), rows)), painter


def chip_of(image: np.ndarray) -> np.ndarray:
    """Return the part of a picture that has the ground of the label: rows in which most is the class's colour."""
    same = (image == rgb(color_of(0))).all(2)
    rows, columns = np.flatnonzero(same.any(1)), np.flatnonzero(same.any(0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


@pytest.fixture(scope="module")
def font(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A font with one glyph, a full square, for the character that no other font has."""
    pen = TTGlyphPen(None)
    pen.moveTo((50, 0))
    for point in ((50, 800), (950, 800), (950, 0)):
        pen.lineTo(point)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(NOWHERE): "square"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 50)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupOS2()
    builder.setupPost()
    path = tmp_path_factory.mktemp("font") / "square.ttf"
    builder.save(path)
    return path


@pytest.mark.parametrize("name", ["person", "Fußgänger", "Žába č. 3", "человек", "άνθρωπος", "سيارة إسعاف", "אדם"])
def test_names_of_many_scripts_are_drawn_with_the_font_that_is_always_there(name: str) -> None:
    fonts = Fonts()
    runs = fonts.runs(name)
    assert runs is not None and "".join(run.text for run in runs) == name
    image, painter = drawn(name, 320, 240, (40, 60, 300, 200), fonts=fonts)
    assert painter.without_font == set()
    label = image[40:60, 40:200]
    assert (label == rgb(color_of(0))).all(2).sum() > 300 and (label.max(2) < 60).sum() > 40


def test_different_names_give_different_pictures_and_arabic_is_joined() -> None:
    joined, apart = drawn("سيارة", 320, 240, (40, 60, 300, 200))[0], drawn("س ي ا ر ة", 320, 240, (40, 60, 300, 200))[0]
    assert (joined != apart).any()


def test_a_name_without_a_font_is_drawn_by_its_number() -> None:
    image, painter = drawn(f"car {NOWHERE}", 320, 240, (40, 60, 300, 200))
    assert painter.without_font == {0}
    assert (image == drawn("#0", 320, 240, (40, 60, 300, 200))[0]).all()


def test_a_given_font_is_used_with_others_for_what_it_lacks(font: Path) -> None:
    fonts = Fonts(font)
    runs = fonts.runs(f"car {NOWHERE}{NOWHERE} 3")
    assert runs is not None and [run.text for run in runs] == ["car ", NOWHERE * 2, " 3"]
    image, painter = drawn(NOWHERE, 320, 240, (40, 60, 300, 200), fonts=fonts)
    assert painter.without_font == set()
    dark = (image[40:60, 40:70].max(2) < 60).sum(0)
    assert dark.max() >= 9  # the square, as high as letters


def test_a_file_that_is_not_a_font_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.ttf").write_bytes(b"no font")
    with pytest.raises(InputError, match="x.ttf: cannot be loaded as a font"):
        Fonts(tmp_path / "x.ttf")


@pytest.mark.parametrize(
    ("width", "height", "factor"),
    [(32, 32, 8), (1, 1, 256), (96, 64, 4), (127, 500, 3), (128, 128, 1), (320, 240, 1), (6000, 4000, 1), (9000, 9, 1)],
)
def test_small_pictures_are_enlarged_by_a_whole_factor(width: int, height: int, factor: int) -> None:
    assert enlargement(width, height) == factor
    assert drawn("cat", width, height)[0].shape == (height * factor, width * factor, 3)


@pytest.mark.parametrize(("width", "height", "size"), [(320, 240, 12), (1920, 1080, 29), (6000, 4000, 98)])
def test_letters_grow_with_the_picture(width: int, height: int, size: int) -> None:
    assert letter_size(width, height) == size


@pytest.mark.parametrize("box", [(0, 0, 32, 32), (28, 0, 32, 4), (0, 28, 4, 32), (-9, -9, 90, 90), (15, 15, 15, 15)])
@pytest.mark.parametrize(
    "name", ["cat", "a name that is much longer than any picture of this size can show at all, ever"]
)
def test_a_label_is_whole_and_inside_the_picture(name: str, box: tuple[float, ...]) -> None:
    image, _ = drawn(name, 32, 32, box)
    ground = (image == rgb(color_of(0))).all(2)
    tall = np.flatnonzero(ground.sum(1) > 20)
    # The ground of the label has its full height: letters of 12 pixels and a margin.
    assert len(tall) >= 14
    assert (image[tall[2:14]].max(2) < 60).sum() > 20


def test_a_very_long_name_is_shortened_in_no_time() -> None:
    painter = Painter(["w" * 5000], Fonts())
    begun = time.monotonic()
    picture = painter.draw(np.full((2000, 3000, 3), 90, np.uint8), np.float32([[100, 500, 900, 900, 0.9, 0]]))
    assert time.monotonic() - begun < 3
    colour = rgb(color_of(0))
    label = (np.asarray(picture)[:495] == colour).all(axis=2).any(axis=0)
    assert 2900 < label.sum() <= 3000


def test_boxes_are_drawn_where_they_are() -> None:
    image, _ = drawn("cat", 400, 300, (100, 120, 200, 220))
    assert (image[170, 100] == rgb(color_of(0))).all() and (image[170, 199] == rgb(color_of(0))).all()
    assert (image[219, 150] == rgb(color_of(0))).all() and (image[220, 150] == 110).all()
    assert (image[170, 99] == 110).all() and (image[170, 200] == 110).all() and (image[170, 150] == 110).all()


def test_labels_do_not_cover_each_other_and_the_best_keeps_its_place() -> None:
    alone, _ = drawn("cat", 320, 240, (40, 60, 300, 200))
    both, _ = drawn("cat", 320, 240, (40, 60, 300, 200), (42, 62, 300, 200))
    assert (alone[40:58, 40:90] == both[40:58, 40:90]).all()


def test_names_lose_what_steers_terminals_and_directions() -> None:
    assert drawable("a\x1b[31m\nb\u202e c\ud800 e\u0301") == "a[31m b c é"


def test_signs_of_several_characters_stay_together() -> None:
    assert list(clusters_of("ae\u0301👩\u200d👧👍🏽x")) == ["a", "e\u0301", "👩\u200d👧", "👍🏽", "x"]
