"""Which class of a model is which category of a data set: by name, in any order."""

from __future__ import annotations

from collections.abc import Sequence

from kubeyolo.config.class_names import clean_names
from kubeyolo.data.manifest import DatasetManifest
from kubeyolo.errors import InputError, suggest

_SUBSET = "set evaluate.classes to the names of the classes to evaluate, if some are enough"


def categories_of_classes(classes: Sequence[str], dataset: DatasetManifest, partial: bool) -> tuple[int | None, ...]:
    """Return the category id of each class of a model; None for a class that is not evaluated.

    Args:
        classes: Names of the model's classes.
        dataset: Manifest of the data set, with the classes that are evaluated.
        partial: Whether the model may have classes that the data set does not have.

    Raises:
        InputError: The names differ; the message has the first difference.
    """
    ours, theirs, ids = clean_names(classes), clean_names(dataset.classes), dataset.category_ids
    if ours == theirs:
        return tuple(ids)
    _check_difference(ours, theirs, dataset.name, partial)
    category = dict(zip(theirs, ids, strict=True))
    return tuple(category.get(name) for name in ours)


def difference(model: Sequence[str], dataset: Sequence[str], name: str) -> str:
    """Return the first difference of the classes of a model and of a data set in words; empty if the sets are equal."""
    ours, theirs = clean_names(model), clean_names(dataset)
    if _have_same_names(ours, theirs):
        return ""
    for names, owner in ((ours, "the model"), (theirs, f"data set {name!r}")):
        twice = next((each for each in names if names.count(each) > 1), None)
        if twice is not None:
            return f"{owner} has two classes {twice!r}"
    counts = f"the model has {_counted(ours)}, data set {name!r} has {_counted(theirs)}"
    lacking = next((each for each in ours if each not in theirs), None)
    if lacking is not None:
        return f"{counts}: the model's class {lacking!r} is not in the data set{_near(theirs, ours)}"
    other = next(each for each in theirs if each not in ours)
    return f"{counts}: the data set's class {other!r} is not in the model"


def _have_same_names(one: Sequence[str], other: Sequence[str]) -> bool:
    """Tell whether two lists of cleaned names have the same names, in any order; repeated names need equal lists."""
    return one == other or (sorted(one) == sorted(other) and len(set(one)) == len(one))


def _check_difference(ours: Sequence[str], theirs: Sequence[str], name: str, partial: bool) -> None:
    if partial:
        lacking = next((each for each in theirs if each not in ours), None)
        if lacking is not None:
            raise InputError(f"evaluate.classes: the model has no class {lacking!r}{suggest(lacking, ours)}")
        if len(set(ours)) == len(ours) and len(set(theirs)) == len(theirs):
            return
    differs = difference(ours, theirs, name)
    if differs:
        raise InputError(f"{differs}; evaluate on a data set with the same classes, or {_SUBSET}")


def _near(theirs: Sequence[str], ours: Sequence[str]) -> str:
    """Return the class of the data set that may be meant: the first one that the model does not have."""
    other = next((each for each in theirs if each not in ours), None)
    return f", which has {other!r} instead" if other is not None else ""


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)} class{'' if len(names) == 1 else 'es'}"
