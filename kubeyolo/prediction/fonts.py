"""Fonts that have the glyphs of a text: the font from --font, the fonts of matplotlib, and the fonts of the machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fontTools.ttLib import TTCollection, TTFont, TTLibError
from PIL import ImageFont, features

from kubeyolo.errors import InputError, one_line

Font = ImageFont.FreeTypeFont

_SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
# Fonts of coloured pictures (emoji) have one or a few of these sizes: those of Noto and Apple.
_PICTURE_SIZES = (109, 136, 160, 96, 64)
_FC_SECONDS = 20
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_JOINER = "\u200d"


@dataclass(frozen=True)
class Face:
    """A font in a file; a file may contain several fonts."""

    path: str
    number: int = 0

    def at(self, size: int) -> Font:
        """Return the font with letters of ``size`` pixels, or in a size of its own if it cannot be scaled.

        Raises:
            OSError: The file cannot be loaded.
        """
        return _loaded(self.path, self.number, size)


@dataclass(frozen=True)
class Run:
    """A part of a text, and the font to draw it with."""

    text: str
    face: Face


class Fonts:
    """Finds fonts for texts; fonts of the machine are searched if no other font has the glyphs.

    Args:
        preferred: A font file that is tried first.

    Raises:
        InputError: The file is not a font.
    """

    def __init__(self, preferred: Path | None = None) -> None:
        self._near = [*_preferred_faces(preferred), *_faces_shipped()]
        self._runs: dict[str, tuple[Run, ...] | None] = {}

    def runs(self, text: str) -> tuple[Run, ...] | None:
        """Return the parts of a text with a font for each; None if any glyph is missing in all fonts.

        A single font for the whole text is preferred.
        """
        if text not in self._runs:
            self._runs[text] = self._search(text)
        return self._runs[text]

    def _search(self, text: str) -> tuple[Run, ...] | None:
        clusters = list(clusters_of(text))
        if not all(map(_is_laid_out, clusters)):
            return None
        face = self._face_of(clusters)
        return (Run(text, face),) if face else self._in_parts(clusters)

    def _in_parts(self, clusters: list[str]) -> tuple[Run, ...] | None:
        runs: list[Run] = []
        for cluster in clusters:
            face = self._face_of([cluster])
            if face is None:
                return None
            if runs and runs[-1].face == face:
                runs[-1] = Run(runs[-1].text + cluster, face)
            else:
                runs.append(Run(cluster, face))
        return tuple(runs)

    def _face_of(self, clusters: list[str]) -> Face | None:
        """Return a font that has the glyphs of all these signs."""
        for face in self._near:
            if all(can_draw(face, cluster) for cluster in clusters):
                return face
        for path in machine_fonts(frozenset("".join(clusters))):
            for face in _faces_of(path):
                if all(can_draw(face, cluster) for cluster in clusters):
                    self._near.append(face)
                    return face
        return None


def clusters_of(text: str) -> Iterator[str]:
    """Yield the signs of a text: each is a character with its accents, or an emoji of one or more characters."""
    cluster = ""
    for character in text:
        joined = cluster.endswith(_JOINER) or _modifies_previous(character)
        if cluster and not joined:
            yield cluster
            cluster = ""
        cluster += character
    if cluster:
        yield cluster


@lru_cache(maxsize=4096)
def can_draw(face: Face, cluster: str) -> bool:
    """Tell whether a font has the glyphs of a sign, and draws something for them."""
    covered = _characters(face.path, face.number)
    if not all(ord(character) in covered for character in cluster if not _is_invisible(character)):
        return False
    if cluster.isspace():
        return True
    try:
        # FreeType may draw nothing for a glyph with coloured outlines.
        mask = face.at(32).getmask(cluster, mode="L")
    except (OSError, ValueError):
        return False
    return mask.getbbox() is not None


def machine_fonts(characters: frozenset[str]) -> tuple[str, ...]:
    """Return font files of this machine that may have all of these characters, regular fonts first."""
    visible = frozenset(character for character in characters if not _is_invisible(character) and character != " ")
    return _fonts_of_fontconfig(visible) or _fonts_of_folders()


@lru_cache(maxsize=256)
def _fonts_of_fontconfig(characters: frozenset[str]) -> tuple[str, ...]:
    program = shutil.which("fc-list")
    if program is None:
        return ()
    points = " ".join(f"{ord(character):x}" for character in sorted(characters))
    try:
        done = subprocess.run(
            [program, "--format", "%{file}\n", f":charset={points}"], capture_output=True, timeout=_FC_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    names = {name for name in os.fsdecode(done.stdout).splitlines() if name.lower().endswith(_SUFFIXES)}
    return tuple(sorted(names, key=_plainness))


@lru_cache(maxsize=1)
def _fonts_of_folders() -> tuple[str, ...]:
    paths = [
        os.path.join(parent, name)
        for folder in _font_folders()
        for parent, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(_SUFFIXES)
    ]
    return tuple(sorted(paths, key=_plainness))


def _font_folders() -> Iterator[str]:
    home = os.path.expanduser("~")
    data = os.environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    yield from (os.path.join(folder, "fonts") for folder in (data, *shared.split(":")) if folder)
    yield os.path.join(home, ".fonts")
    if sys.platform == "darwin":
        yield from ("/System/Library/Fonts", "/Library/Fonts", os.path.join(home, "Library", "Fonts"))
    if sys.platform == "win32":
        yield os.path.join(os.environ.get("WINDIR", r"C:\Windows"), "Fonts")


def _plainness(path: str) -> tuple[int, str]:
    name = os.path.basename(path).lower()
    ornate = sum(word in name for word in ("bold", "italic", "oblique", "serif", "mono", "light", "thin", "black"))
    return ornate - ("regular" in name) - 2 * ("sans" in name), name


def _preferred_faces(path: Path | None) -> list[Face]:
    if path is None:
        return []
    try:
        ImageFont.truetype(str(path), 16)
    except OSError as error:
        try:
            ImageFont.truetype(str(path), _PICTURE_SIZES[0])
        except OSError:
            what = error.strerror or one_line(error)
            raise InputError(f"--font {path}: cannot be loaded as a font ({what}); give a .ttf or .otf file") from error
    return _faces_of(str(path))


def _faces_shipped() -> list[Face]:
    """Return the fonts of matplotlib without the import of matplotlib, which takes a second."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or not spec.submodule_search_locations:
        return []
    folder = Path(next(iter(spec.submodule_search_locations)), "mpl-data", "fonts", "ttf")
    path = folder / "DejaVuSans.ttf"
    return [Face(str(path))] if path.is_file() else []


@lru_cache(maxsize=64)
def _loaded(path: str, number: int, size: int) -> Font:
    for tried in (size, *_PICTURE_SIZES):
        try:
            return ImageFont.truetype(path, tried, index=number)
        except OSError as error:
            if "pixel size" not in str(error):
                raise
    raise OSError(f"{path}: has none of the sizes {_PICTURE_SIZES}")


@lru_cache(maxsize=256)
def _faces_of(path: str) -> list[Face]:
    if not path.lower().endswith((".ttc", ".otc")):
        return [Face(path)]
    try:
        with TTCollection(path, lazy=True) as collection:
            return [Face(path, number) for number in range(len(collection.fonts))]
    except (OSError, TTLibError):
        return []


@lru_cache(maxsize=256)
def _characters(path: str, number: int) -> frozenset[int]:
    try:
        with TTFont(path, fontNumber=number, lazy=True) as font:
            return frozenset(font.getBestCmap() or ())
    except Exception:  # fontTools raises many kinds of errors for damaged fonts; such a font counts as empty
        return frozenset()


def _modifies_previous(character: str) -> bool:
    """Tell whether a character changes the character before it: accents, joiners, skin tones."""
    return (
        unicodedata.category(character) in ("Mn", "Mc", "Me")
        or _is_invisible(character)
        or ord(character) in _SKIN_TONES
    )


def _is_invisible(character: str) -> bool:
    """Tell whether a character has no glyph but changes other characters: joiners, directions, selectors, tags."""
    code = ord(character)
    return unicodedata.category(character) == "Cf" or 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF


def _is_laid_out(cluster: str) -> bool:
    """Tell whether Pillow can lay out the characters: right-to-left and joined letters need its library Raqm."""
    if features.check("raqm"):
        return True
    return not any(
        unicodedata.bidirectional(character) in ("R", "AL") or unicodedata.category(character) in ("Mn", "Mc")
        for character in cluster
    )
