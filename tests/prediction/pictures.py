"""Pictures for the detector of colours."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def picture(width: int = 128, height: int = 128, **areas: tuple[int, int, int, int]) -> Image.Image:
    """Return a grey picture with areas of pure colour, x1, y1, x2, y2 in pixels; by default one red area."""
    image = Image.new("RGB", (width, height), (110, 110, 110))
    for name, (x1, y1, x2, y2) in (areas or {"red": (16, 24, 80, 64)}).items():
        ImageDraw.Draw(image).rectangle((x1, y1, x2 - 1, y2 - 1), fill=COLOURS[name])
    return image


def save(path: Path, image: Image.Image | None = None, **options: object) -> Path:
    """Write a picture, by default one with a red area."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or picture()).save(path, **options)
    return path
