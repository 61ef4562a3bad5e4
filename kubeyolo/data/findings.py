"""What was found in a data set: faults that were mended, things to know, and what is refused.

Each kind of finding stands once in :data:`KINDS`, with what is done about it by default. ``data.findings`` of the
configuration says otherwise for single kinds, ``data.strict`` refuses all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kubeyolo.errors import InputError, suggest

Action = Literal["mend", "warn", "refuse"]
"""mend: corrected or left out, and counted; warn: kept as it is, and counted; refuse: nothing is stored."""


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        code: Its name in the configuration.
        actions: What may be done about it; the first is the default.
        about: What is wrong, in the plural ("boxes that ...").
        done: What mending does, or what a warning means, as a short clause.
        remedy: What to do about it.
    """

    code: str
    actions: tuple[Action, ...]
    about: str
    done: str
    remedy: str


def _mended(code: str, about: str, done: str, remedy: str) -> Kind:
    return Kind(code, ("mend", "refuse"), about, done, remedy)


def _warned(code: str, about: str, done: str, remedy: str) -> Kind:
    return Kind(code, ("warn", "refuse"), about, done, remedy)


def _refused(code: str, about: str, otherwise: Action, done: str, remedy: str) -> Kind:
    return Kind(code, ("refuse", otherwise), about, done, remedy)


def _refused_as(code: str, about: str, form: str) -> Kind:
    """Return the kind of boxes that look like another form: refused, read as that form, or kept as they are."""
    remedy = f"export [left, top, width, height], or set data.findings.{code}=mend to read them as {form}"
    remedy += ", or =warn where they are right as they are"
    return Kind(code, ("refuse", "mend", "warn"), about, f"read as {form}", remedy)


_REPLACE = "replace the file, or remove it from the annotations"
_KINDS = (
    # Layout
    _mended(
        "split_made",
        "images of one annotation file without splits",
        "divided into train and val by data.split, data.split_seed and data.split_group",
        "to divide them otherwise, set these, or export train and val apart",
    ),
    _mended(
        "split_without_annotations",
        "images of an optional split without annotations",
        "kept without boxes",
        "remove the split, or annotate it, if it is to be evaluated",
    ),
    _mended(
        "split_left_out",
        "optional splits with a fault",
        "left out",
        "correct the fault, or remove the split",
    ),
    # Annotations: ids, numbers and names
    _mended(
        "number_as_text",
        "numbers written as text or as fractions that are whole",
        "read as the numbers they are",
        "nothing, or export the numbers as numbers",
    ),
    _mended(
        "id_as_text",
        "ids that are text",
        "numbered; detections are written with the original ids",
        "nothing, or number the ids",
    ),
    _mended(
        "id_twice",
        "annotations whose id is absent or used twice",
        "numbered anew",
        "nothing, or number the annotations anew after files are joined",
    ),
    _mended(
        "image_unknown",
        "annotations of images that are not listed",
        "left out",
        "add the images, or remove the annotations",
    ),
    _mended(
        "image_listed_twice",
        "image files that are listed more than once",
        "joined: the boxes of all entries belong to the one image",
        "nothing, or list each file once",
    ),
    _mended(
        "size_unknown",
        "images without a size in the annotations",
        "the size of the image file is taken",
        "nothing, or export width and height",
    ),
    _refused(
        "size_scaled",
        "images of another size than annotated but of the same shape",
        "mend",
        "boxes are scaled to the image",
        "export annotations of the images as they are now, or set data.findings.size_scaled=mend where the boxes "
        "belong to the larger or smaller original",
    ),
    _mended(
        "name_near",
        "file names that match a file but for case, accents, separators, percent codes or leading folders",
        "the one file that matches is taken",
        "nothing, or write file_name as the file is named",
    ),
    _mended(
        "categories_joined",
        "categories that not every split lists",
        "the union is taken, ids and names agree",
        "nothing, or list the same categories in every split",
    ),
    _mended(
        "category_parent",
        "categories without boxes that are the supercategory of others, or the background",
        "left out",
        "nothing, or remove them from the categories",
    ),
    _warned(
        "class_without_boxes",
        "classes without boxes in any split",
        "kept; they cannot be learned",
        "annotate them, or remove them from the categories",
    ),
    _warned(
        "class_in_one_split",
        "classes with boxes in only one of train and val",
        "kept; what is only in train is not evaluated, what is only in val cannot be learned",
        "annotate them in both, or divide the images anew",
    ),
    _warned(
        "class_names_alike",
        "classes whose names differ only in case, spaces or punctuation",
        "kept as classes of their own",
        "give them one name if they are one class",
    ),
    # Boxes
    _mended(
        "box_outside",
        "boxes that reach beyond their image",
        "cut at its border",
        "nothing, or cut them in the annotation tool",
    ),
    _refused(
        "boxes_outside",
        "boxes outside their image: too many to be slips",
        "mend",
        "cut at the border or left out",
        "look whether the sizes or the images are others than those annotated; if the boxes are right, set "
        "data.findings.boxes_outside=mend",
    ),
    _mended(
        "box_empty",
        "boxes without width or height, or of which nothing lies in the image",
        "left out",
        "nothing, or remove them",
    ),
    _mended(
        "box_swapped",
        "boxes with a negative width or height",
        "their corners are put in order",
        "nothing, or export [left, top, width, height]",
    ),
    _mended(
        "box_fractions",
        "boxes in fractions of the image",
        "scaled to pixels",
        "nothing, or export boxes in pixels",
    ),
    _refused_as("box_corners", "boxes that look like [x1, y1, x2, y2]", "corners"),
    _refused_as("box_centres", "boxes that look like [x centre, y centre, width, height]", "centres"),
    _refused(
        "boxes_mixed",
        "boxes within 0 to 1 among boxes in pixels",
        "warn",
        "taken as pixels",
        "write all boxes in pixels, or all as fractions of the image",
    ),
    _mended(
        "box_form",
        "boxes written as text or as an object",
        "read as [left, top, width, height]",
        "nothing, or export a list of four numbers",
    ),
    _mended(
        "box_from_mask",
        "annotations with a mask and without a box",
        "the box around the mask is taken",
        "nothing, or export bbox",
    ),
    _mended(
        "box_absent",
        "annotations without box and mask",
        "left out",
        "draw a box, or remove them",
    ),
    _mended(
        "shape_without_box",
        "shapes without a box, such as points and lines",
        "left out",
        "nothing, or draw boxes",
    ),
    _mended(
        "box_not_finite",
        "boxes with NaN or infinity",
        "left out",
        "correct or remove them",
    ),
    _mended(
        "box_double",
        "exact doubles of boxes",
        "left out",
        "nothing, or remove them",
    ),
    _warned(
        "box_whole_image",
        "boxes that cover their whole image, where most do",
        "kept; a detector of them learns to classify images",
        "look whether the annotations are labels of images",
    ),
    _warned(
        "crowd_many",
        "boxes with iscrowd 1",
        "kept for the evaluation and not trained on",
        "masks of a brush tool are often exported so; write iscrowd 0 for single objects",
    ),
    _mended(
        "area_wrong",
        "areas of 0, 1, a fraction or more than the box",
        "width x height of the box is taken",
        "nothing, or export the area in square pixels",
    ),
    # Image files
    _refused("image_missing", "image files that are missing", "mend", "left out", _REPLACE),
    _refused("image_damaged", "image files that cannot be decoded whole", "mend", "left out", _REPLACE),
    _refused(
        "size_differs",
        "images of another size than annotated",
        "mend",
        "left out",
        "export the annotations of these images again",
    ),
    _warned(
        "image_warning",
        "images of which a small part is damaged",
        "kept",
        _REPLACE,
    ),
    _mended(
        "jpeg_without_end",
        "JPEG files without an end marker",
        "kept, all pixels are there",
        "nothing, or copy the files again",
    ),
    _mended(
        "orientation",
        "images with an EXIF orientation",
        "turned as a viewer shows them where the annotated size is the turned one or cannot tell, kept as stored where "
        "it is that of the stored pixels",
        "nothing; data.orientation=ignore takes the pixels as stored",
    ),
    _mended(
        "transparency",
        "images with transparency",
        "laid over grey",
        "nothing, or store them without an alpha channel",
    ),
    _mended(
        "more_bands",
        "images with more than three bands",
        "the first three are taken",
        "nothing, or store them as RGB",
    ),
    _mended(
        "more_pages",
        "image files with more than one page or frame",
        "the first is taken",
        "nothing, or store each page as an image",
    ),
    _warned(
        "deep_samples",
        "images with more than 8 bits",
        "scaled from the whole range of their type to 8 bits",
        "where they use a part of it, name it: data.levels=[least, largest]",
    ),
    _warned("image_dark", "images that are nearly black", "kept", "look at them; data.levels scales deep samples"),
    _warned("image_constant", "images of one colour", "kept", "remove them if they show nothing"),
    _warned("image_tiny", "images with a side below 16 pixels", "kept", "remove them if they show nothing"),
    # Copies
    _warned(
        "image_twice",
        "images that are the same as another of their split",
        "kept; they count more than others",
        "remove the copies",
    ),
    _warned(
        "leak",
        "images of other splits that are in train too, byte by byte",
        "kept; numbers measured on them are too good",
        "remove them from train or from the other split",
    ),
    _warned(
        "near_leak",
        "images of other splits that nearly equal one of train",
        "kept; numbers measured on them may be too good",
        "divide the images so that frames of one scene stay together (data.split_group)",
    ),
)

KINDS: Mapping[str, Kind] = MappingProxyType({kind.code: kind for kind in _KINDS})
"""Every kind of finding by its code, in the order in which they are told."""


_SAY_THEMSELVES = frozenset({"image_missing", "image_damaged", "size_differs", "split_left_out"})
"""Kinds whose examples say what is wrong."""


class Finding(BaseModel):
    """A finding as the manifest of a data set stores it.

    Attributes:
        code: The kind.
        action: What was done.
        count: How many there are.
        first: The first of them, in words: file, entry, value.
        note: What was found beyond the count, such as a range; may be empty.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str
    action: Action
    count: int = Field(ge=1)
    first: str
    note: str = ""

    @property
    def about(self) -> str:
        """What was found, in the plural."""
        return KINDS[self.code].about if self.code in KINDS else self.code.replace("_", " ")

    @property
    def done(self) -> str:
        """What was done about it."""
        if self.code not in KINDS:
            return self.action
        kind = KINDS[self.code]
        return "kept as they are" if self.action == "warn" and "mend" in kind.actions else kind.done

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return KINDS[self.code].remedy if self.code in KINDS else ""

    def words(self) -> str:
        """Return the finding in a line."""
        return f"{self.brief()}; the first: {self.first} [{self.code}]"

    def brief(self) -> str:
        """Return the finding in a line without its example."""
        note = f" ({self.note})" if self.note else ""
        return f"{self.about}: {self.count:,}{note}, {self.done}"

    def facts(self) -> dict[str, Any]:
        """Return the finding as JSON values with its words, for records and summaries."""
        return {**self.model_dump(mode="json"), "about": self.about, "done": self.done, "remedy": self.remedy}


class Findings:
    """Collects what is found in a data set, and refuses what is to be refused.

    Findings of one kind are added up; the first example stays.
    """

    def __init__(self, actions: Mapping[str, str] = MappingProxyType({}), strict: bool = False) -> None:
        """Take the actions that the configuration says, by code; ``strict`` refuses every finding."""
        check_actions(actions)
        self._actions = dict(actions)
        self._strict = strict
        self._found: dict[str, Finding] = {}

    def action(self, code: str) -> Action:
        """Return what is done about findings of a kind."""
        if self._strict:
            return "refuse"
        chosen = self._actions.get(code, KINDS[code].actions[0])
        return next(action for action in KINDS[code].actions if action == chosen)

    def add(self, code: str, first: str, count: int = 1, note: str = "") -> None:
        """Count findings of a kind; none of them (``count`` 0) changes nothing."""
        if count <= 0:
            return
        before = self._found.get(code)
        if before is None:
            self._found[code] = Finding(code=code, action=self.action(code), count=count, first=first, note=note)
        else:
            update = {"count": before.count + count, "note": before.note or note}
            self._found[code] = before.model_copy(update=update)

    def apart(self) -> Findings:
        """Return a collector with the same actions and nothing in it."""
        return Findings(self._actions, self._strict)

    def join(self, others: Iterable[Finding]) -> None:
        """Add findings that were collected apart."""
        for other in others:
            self.add(other.code, other.first, other.count, other.note)

    def found(self) -> tuple[Finding, ...]:
        """Return the findings in the order of their kinds."""
        return tuple(self._found[code] for code in KINDS if code in self._found)

    def refused(self) -> tuple[Finding, ...]:
        """Return the findings for which nothing is to be stored."""
        return tuple(finding for finding in self.found() if finding.action == "refuse")

    def check(self) -> None:
        """Raise for findings that are refused.

        Raises:
            InputError: Naming the first such finding, the number of others of its kind, and the other kinds.
        """
        refused = self.refused()
        if not refused:
            return
        first = refused[0]
        more = f" (and {first.count - 1:,} more)" if first.count > 1 else ""
        about = "" if first.code in _SAY_THEMSELVES else f": {first.about}"
        note = f", {first.note}" if first.note else ""
        others = [f"{other.about}: {other.count:,} [{other.code}]" for other in refused[1:]]
        also = f"; also refused: {', '.join(others)}" if others else ""
        raise InputError(f"{first.first}{more}{about}{note}; {first.remedy} [{first.code}]{also}")


def check_actions(actions: Mapping[str, str]) -> None:
    """Refuse codes and actions that do not exist.

    Raises:
        InputError: Naming the code, and what is possible.
    """
    for code, action in actions.items():
        if code not in KINDS:
            raise InputError(f"data.findings: unknown code {code!r}{suggest(code, KINDS)}; docs/data.md lists them")
        if action not in KINDS[code].actions:
            possible = " or ".join(KINDS[code].actions)
            raise InputError(f"data.findings.{code} = {action!r}: possible is {possible}")
