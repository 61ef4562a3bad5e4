"""Boxes and labels on pictures of any size."""

from __future__ import annotations

import math
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw

from kubeyolo.arrays import Float32Array, Pixels
from kubeyolo.prediction.fonts import Fonts, Run, clusters_of
from kubeyolo.report.samples import BOX_COLORS, overlap

INK = (16, 16, 16)
HALO = (0, 0, 0)
LEAST_LETTERS = 12
"""Pixels: height of letters below which labels are hard to read."""
SMALL_SIDE = 128
"""Pixels: a picture whose shorter side is below this is enlarged before boxes are drawn."""
_ENLARGED_SIDE = 256
_LONGEST_ENLARGED = 2000
# Letters are this part of the side of a square with as many pixels as the picture.
_LETTERS_PER_SIDE = 50
_ELLIPSIS = "…"
# Letters are at least an eighth as wide as they are high.
_NARROWEST = 8

Rectangle = tuple[int, int, int, int]


@dataclass
class Painter:
    """Draws boxes with the names of their classes, and records the names for which there is no font.

    Attributes:
        classes: Names by class number.
        fonts: Finds fonts for the names.
        without_font: Numbers of classes that are drawn as ``#17``, because no font has the glyphs of their names.
    """

    classes: Sequence[str]
    fonts: Fonts
    without_font: set[int] = field(default_factory=set)

    def draw(self, pixels: Pixels, rows: Float32Array) -> Image.Image:
        """Return a picture with boxes.

        A small picture is enlarged by an integer factor, so that labels are legible on it.

        Args:
            pixels: RGB (H, W, 3).
            rows: (k, 6) of x1, y1, x2, y2 in pixels, score and class number, best first.
        """
        factor = enlargement(pixels.shape[1], pixels.shape[0])
        picture = Image.fromarray(pixels)
        if factor > 1:
            picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
        size = letter_size(picture.width, picture.height)
        line = max(2, round(size / 8))
        canvas = ImageDraw.Draw(picture)
        boxes = [_inside(row[:4] * factor, picture.width, picture.height) for row in rows]
        # The best boxes last, so that their lines are on top.
        for box, row in reversed(list(zip(boxes, rows, strict=True))):
            canvas.rectangle(box, outline=HALO, width=line + max(1, line // 2))
            canvas.rectangle(box, outline=color_of(int(row[5])), width=line)
        taken: list[Rectangle] = []
        for box, row in zip(boxes, rows, strict=True):
            label = self._label(int(row[5]), float(row[4]), size, picture.width)
            area = label and _label_area(box, label.size, (picture.width, picture.height), taken)
            if label and area:
                picture.paste(label, area[:2])
                taken.append(area)
        return picture

    def _label(self, number: int, score: float, size: int, widest: int) -> Image.Image | None:
        """Return the label of a box, not wider than the picture; None if not even one letter fits."""
        color = color_of(number)
        name = self._name(number)
        ending = f" {score:.2f}"
        clusters = list(clusters_of(name))
        for letters in range(size, LEAST_LETTERS - 1, -max(1, size // 8)):
            if len(clusters) * letters > _NARROWEST * widest:
                continue  # not even narrow letters would fit, and drawing thousands of letters takes seconds
            label = self._chip(name + ending, letters, color)
            if label.width <= widest:
                return label

        def shortened(count: int, last: str) -> Image.Image:
            return self._chip("".join(clusters[:count]) + _ELLIPSIS + last, LEAST_LETTERS, color)

        most = min(len(clusters) - 1, widest // 4)
        count = bisect_right(range(1, most + 1), widest, key=lambda letters: shortened(letters, "").width)
        if count < 1:
            return None
        label = shortened(count, ending)
        return label if label.width <= widest else shortened(count, "")

    def _name(self, number: int) -> str:
        """Return the name of a class in a form that can be drawn."""
        name = drawable(self.classes[number])
        if name and self.fonts.runs(name) is not None:
            return name
        self.without_font.add(number)
        return f"#{number}"

    def _chip(self, text: str, size: int, color: str) -> Image.Image:
        """Return a text on a background in the colour of its class."""
        runs = self.fonts.runs(text) or ()
        drawn = [_draw_run(run, size, color) for run in runs]
        margin = max(2, size // 4)
        above = max((over for _, over in drawn), default=size)
        below = max((image.height - over for image, over in drawn), default=0)
        width = sum(image.width for image, _ in drawn) + 2 * margin
        chip = Image.new("RGB", (width, above + below + 2 * (margin // 2)), color)
        left = margin
        for image, over in drawn:
            chip.paste(image, (left, margin // 2 + above - over))
            left += image.width
        return chip


def enlargement(width: int, height: int) -> int:
    """Return the integer factor by which a picture is enlarged before boxes are drawn; 1 unless it is small."""
    short, long = sorted((width, height))
    if short >= SMALL_SIDE:
        return 1
    return max(1, min(math.ceil(_ENLARGED_SIDE / short), _LONGEST_ENLARGED // long))


def letter_size(width: int, height: int) -> int:
    """Return the height of letters, in pixels, that can be read easily when the whole picture is shown."""
    by_area = round(math.sqrt(width * height) / _LETTERS_PER_SIDE)
    return max(LEAST_LETTERS, min(by_area, min(width, height) // 4))


def color_of(number: int) -> str:
    """Return the colour of a class, as in the reports."""
    return BOX_COLORS[number % len(BOX_COLORS)]


def drawable(name: str) -> str:
    """Return a name as it is drawn: composed letters on one line, without control characters and direction marks."""
    spaced = "".join(" " if sign.isspace() else sign for sign in unicodedata.normalize("NFC", name))
    shown = (sign for sign in spaced if unicodedata.category(sign) not in ("Cc", "Cs") and sign not in _DIRECTIONS)
    return " ".join("".join(shown).split())


_DIRECTIONS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


def _draw_run(run: Run, size: int, color: str) -> tuple[Image.Image, int]:
    """Return the picture of a part of a text, and the number of its rows above the base line."""
    font = run.face.at(size)
    ascent, descent = font.getmetrics()
    left, top, right, bottom = font.getbbox(run.text, anchor="ls")
    above, below = max(ascent, -int(top)), max(descent, int(bottom))
    width = max(1, math.ceil(max(font.getlength(run.text), right)) - min(0, math.floor(left)))
    image = Image.new("RGB", (width, above + below), color)
    canvas = ImageDraw.Draw(image)
    canvas.text((-min(0, left), above), run.text, font=font, fill=INK, anchor="ls", embedded_color=True)
    if font.size == size:
        return image, above
    scale = size * 1.2 / image.height
    resized = image.resize((max(1, round(width * scale)), max(1, round(image.height * scale))), Image.Resampling.BOX)
    return resized, round(above * scale)


def _inside(box: Float32Array, width: int, height: int) -> Rectangle:
    """Return the first column and row and the last column and row of a box in the picture."""
    x1, y1, x2, y2 = (float(value) for value in box)
    left, top = min(max(round(x1), 0), width - 1), min(max(round(y1), 0), height - 1)
    return left, top, min(max(round(x2) - 1, left), width - 1), min(max(round(y2) - 1, top), height - 1)


def _label_area(
    box: Rectangle, label: tuple[int, int], picture: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle | None:
    """Return the area of a label: above, in or below its box; None if none of these areas is free."""
    width, height = label
    left = min(max(box[0], 0), picture[0] - width)
    for top in (box[1] - height, box[1], box[3] + 1 - height, box[3] + 1):
        area = (left, top, left + width, top + height)
        if top >= 0 and area[3] <= picture[1] and not any(overlap(area, other) for other in taken):
            return area
    return None
