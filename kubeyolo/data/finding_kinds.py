"""The kinds of findings in a data set: what is wrong, what is done about it, and what a user can do.

``docs/data.md`` has a table of all kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Action = Literal["mend", "warn", "refuse"]
"""mend: correct or leave out each case, and count the cases; warn: keep and count the cases; refuse: store nothing."""


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        code: Its name in the configuration.
        actions: The actions that can be configured; the first is the default.
        about: What is wrong, as a plural noun phrase ("boxes that ...").
        done: What is done with the cases if the action is mend or warn, as a short clause.
        remedy: What the user should do, as an imperative.
        is_optional: Whether the mended data set is as good without the remedy.
    """

    code: str
    actions: tuple[Action, ...]
    about: str
    done: str
    remedy: str
    is_optional: bool = False

    def advice(self, action: Action) -> str:
        """Return the remedy, marked as optional if the data set is as good without it."""
        return f"optional: {self.remedy}" if self.is_optional and action != "refuse" else self.remedy


def _corrected(code: str, about: str, done: str, remedy: str) -> Kind:
    return Kind(code, ("mend", "refuse"), about, done, remedy, is_optional=True)


def _mended(code: str, about: str, done: str, remedy: str) -> Kind:
    return Kind(code, ("mend", "refuse"), about, done, remedy)


def _warned(code: str, about: str, done: str, remedy: str) -> Kind:
    return Kind(code, ("warn", "refuse"), about, done, remedy)


def _refused(code: str, about: str, otherwise: Action, done: str, remedy: str) -> Kind:
    return Kind(code, ("refuse", otherwise), about, done, remedy)


def _refused_as(code: str, about: str, form: str) -> Kind:
    """Return the kind for boxes that look like ``form``; they can be refused, read as ``form``, or kept unchanged."""
    remedy = f"{_FORM}, or set data.findings.{code}=mend to read them as {form}, or =warn to keep them unchanged"
    return Kind(code, ("refuse", "mend", "warn"), about, f"read as {form}", remedy)


_REPLACE = "replace the files, or remove them from the annotations"
_FORM = "export [left, top, width, height]"
_KINDS = (
    # Layout
    _corrected(
        "split_made",
        "images without splits",
        "divided into train and val by data.split, data.split_seed and data.split_group",
        "to divide the images differently, change these three settings, or export train and val separately",
    ),
    _mended(
        "split_without_annotations",
        "images of an optional split without annotations",
        "kept without boxes",
        "annotate the split to evaluate on it; otherwise remove it",
    ),
    _mended(
        "split_left_out", "optional splits that cannot be used", "left out", "correct the error, or remove the split"
    ),
    # Annotations: ids, numbers and names
    _corrected(
        "number_as_text",
        "numbers written as text, or integers written as floats (7.0)",
        "read as numbers",
        "export numbers, not text",
    ),
    _corrected(
        "id_as_text",
        "ids that are text",
        "numbered; detections are written with the original ids",
        "use numbers as ids",
    ),
    _corrected(
        "id_twice",
        "annotations whose id is missing or used twice",
        "all annotations of the file are renumbered",
        "renumber annotations after merging files",
    ),
    _mended(
        "image_unknown",
        "annotations of images that the file does not list",
        "left out",
        "add the images to the file, or remove the annotations",
    ),
    _corrected(
        "image_listed_twice",
        "image files that are listed more than once",
        "merged: the image gets the boxes of all its entries",
        "list each file once",
    ),
    _corrected(
        "size_unknown",
        "images without a width and height in the annotations",
        "read from the image files",
        "export width and height",
    ),
    _refused(
        "size_scaled",
        "images that were resized after they were annotated",
        "mend",
        "boxes are scaled to the image file",
        "export the annotations for the images at their current size; if the annotations belong to the larger or "
        "smaller originals, set data.findings.size_scaled=mend to scale the boxes",
    ),
    _corrected(
        "name_near",
        "file names that differ from the file only in case, accents, separators, percent codes or leading folders",
        "the only file that matches is used",
        "write file_name exactly as the file is named",
    ),
    _corrected(
        "categories_joined",
        "categories that some splits do not list",
        "all splits use the categories of all files",
        "list the same categories in every split",
    ),
    _corrected(
        "category_parent",
        "categories without boxes that only group others (supercategory), or are the background",
        "left out",
        "remove them from the categories",
    ),
    _warned(
        "class_without_boxes",
        "classes without boxes in any split",
        "kept; the detector cannot learn them",
        "annotate objects of these classes, or remove the classes",
    ),
    _warned(
        "class_in_one_split",
        "classes with boxes in only one of train and val",
        "kept; a class that is only in train is not evaluated, a class that is only in val cannot be learned",
        "annotate objects of these classes in both splits, or divide the images differently",
    ),
    _corrected(
        "class_name_unsafe",
        "classes whose names have control characters or marks of direction, or more than 200 characters",
        "written with the numbers of these characters, and cut",
        "give the classes names that can be printed",
    ),
    _warned(
        "class_names_alike",
        "classes whose names differ only in case, spaces or punctuation",
        "kept as separate classes",
        "if they are the same class, give them the same name",
    ),
    # Boxes
    _corrected(
        "box_outside", "boxes that reach beyond their image", "clipped to the image", "clip them in the annotation tool"
    ),
    _refused(
        "boxes_outside",
        "boxes outside their image, too many to be accidental",
        "mend",
        "clipped to the image, or left out if entirely outside",
        "check that the image files are those that were annotated, and that width and height are correct; if the boxes "
        "are right, set data.findings.boxes_outside=mend",
    ),
    _corrected(
        "box_empty", "boxes without width or height, or entirely outside their image", "left out", "remove them"
    ),
    _corrected("box_swapped", "boxes with a negative width or height", "the corners are swapped", _FORM),
    _corrected(
        "box_fractions", "boxes in fractions of the image (0 to 1)", "scaled to pixels", "export boxes in pixels"
    ),
    _refused_as("box_corners", "boxes that look like [x1, y1, x2, y2]", "corners"),
    _refused_as("box_centres", "boxes that look like [x centre, y centre, width, height]", "centres and sizes"),
    _refused(
        "boxes_mixed",
        "boxes that look like fractions (0 to 1) among boxes in pixels",
        "warn",
        "read as pixels",
        "write all boxes in pixels, or all as fractions of the image",
    ),
    _corrected(
        "box_form",
        "boxes written as text or as an object",
        "read as [left, top, width, height]",
        "export a list of four numbers",
    ),
    _corrected(
        "box_from_mask", "annotations with a mask but without a box", "the box around the mask is used", "export bbox"
    ),
    _mended("box_absent", "annotations without a box or a mask", "left out", "draw boxes, or remove the annotations"),
    _corrected(
        "shape_without_box",
        "points, lines and other shapes without an area",
        "left out",
        "draw boxes if they are objects to detect",
    ),
    _mended("box_not_finite", "boxes with NaN or infinity", "left out", "correct the boxes, or remove them"),
    _corrected("box_double", "exact duplicates of boxes", "left out", "remove them"),
    _warned(
        "box_whole_image",
        "boxes that cover their whole image, as most boxes do",
        "kept; a detector trained on them learns to classify images",
        "check whether the annotations label whole images rather than objects",
    ),
    _warned(
        "crowd_many",
        "boxes with iscrowd 1",
        "kept for evaluation, not used in training",
        "write iscrowd 0 for single objects: tools export masks drawn with a brush as iscrowd 1",
    ),
    _corrected(
        "area_wrong",
        "areas that do not fit the box: 0, 1, a fraction, or larger than the box",
        "width x height of the box is used",
        "export the area in square pixels",
    ),
    # Image files
    _refused("image_missing", "image files that are missing", "mend", "left out", _REPLACE),
    _refused("image_damaged", "image files that cannot be decoded completely", "mend", "left out", _REPLACE),
    _refused(
        "size_differs",
        "images whose size is not the annotated size",
        "mend",
        "left out",
        "export the annotations of these images again",
    ),
    _warned("image_warning", "images with minor damage", "kept", _REPLACE),
    _corrected(
        "jpeg_without_end",
        "JPEG files without an end marker",
        "kept; all pixels are there",
        "copy the files again if a transfer was interrupted",
    ),
    _corrected(
        "orientation",
        "images with an EXIF orientation",
        "rotated as image viewers do, unless the annotated size is the size before rotation",
        "set data.orientation=ignore to use the pixels without rotation",
    ),
    _corrected("transparency", "images with transparency", "blended over grey", "save them without an alpha channel"),
    _corrected(
        "more_bands",
        "images with more than three bands",
        "the first three bands are used",
        "save them as RGB if different bands are needed",
    ),
    _corrected(
        "more_pages",
        "image files with more than one page or frame",
        "the first page is used",
        "save each page as an image if the other pages are needed",
    ),
    _warned(
        "deep_samples",
        "images with more than 8 bits per sample",
        "the full range of their type is scaled to 8 bits",
        "if the values use only part of that range, set data.levels=[lowest, highest]",
    ),
    _warned(
        "image_dark",
        "images that are nearly black",
        "kept",
        "view them; for images with more than 8 bits set data.levels=[lowest, highest]",
    ),
    _warned("image_constant", "images of a single colour", "kept", "view them, and remove them if they are empty"),
    _warned("image_tiny", "images with a side below 16 pixels", "kept", "view them, and remove thumbnails"),
    # Copies
    _warned(
        "image_twice",
        "images that are copies of another image in the same split",
        "kept; each copy counts as a separate image",
        "remove the copies",
    ),
    _warned(
        "leak",
        "images of val or another split that are in train too (identical files)",
        "kept; the metrics on that split are misleadingly high",
        "remove the images from train, or from the other split",
    ),
    _warned(
        "near_leak",
        "images of val or another split that look nearly the same as an image of train",
        "kept; the metrics on that split may be misleadingly high",
        "divide the images so that frames of the same scene stay together (data.split_group)",
    ),
)

KINDS: Mapping[str, Kind] = MappingProxyType({kind.code: kind for kind in _KINDS})
"""Every kind of finding by its code, in the order in which findings are listed."""
