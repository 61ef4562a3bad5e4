"""The classes of a data set: the union of the categories of its splits, which must agree in their ids."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kubeyolo.arrays import Int64Array
from kubeyolo.config.class_names import clean_name, plain_name
from kubeyolo.data.columns import canonical, duplicates, is_text, positions_of, read_keys, refuse, shown
from kubeyolo.data.findings import Findings
from kubeyolo.data.raw import RawSplit
from kubeyolo.errors import InputError
from kubeyolo.names import class_name

_BACKGROUND = frozenset({"background", "__background__", "_background_", "bg"})
_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Categories:
    """The classes of a data set, ordered by their ids.

    Attributes:
        ids: Ids as whole numbers.
        names: Cleaned names: without leading and trailing spaces, in Unicode NFC.
        keys: The ids as the files and their annotations write them; numbers or texts.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    keys: tuple[Any, ...]

    @property
    def texts(self) -> tuple[str, ...] | None:
        """The ids as texts if at least one id is a text; None if all ids are numbers."""
        if not any(isinstance(key, str) for key in self.keys):
            return None
        return tuple(str(key) for key in self.keys)

    def classes_of(self, column: Sequence[Any]) -> Int64Array:
        """Return the class number of each category id of a column, -1 for an unknown id."""
        return positions_of(column, self.keys)


@dataclass(frozen=True)
class _Category:
    key: Any
    name: str
    parent: str


def join_categories(splits: Mapping[str, RawSplit], findings: Findings) -> Categories:
    """Return the categories of all splits: their union, without categories that only group others.

    Raises:
        InputError: An id has two names or a name has two ids, within a split or in different splits.
    """
    joined: dict[object, _Category] = {}
    origin: dict[object, str] = {}
    keys: dict[str, object] = {}
    missing: list[str] = []
    # A list of images without annotations may have no categories.
    lists = {split: _read(raw, findings) for split, raw in splits.items() if raw.has_annotations or raw.categories.ids}
    used = {key for raw in splits.values() for key in _used_keys(raw)}
    for split, categories in lists.items():
        where = splits[split].where
        kept = _without_parents(categories, used)
        _refuse_other_ids(where, kept)
        for each in kept:
            known = joined.get(each.key)
            other = keys.setdefault(each.name, each.key)
            if other != each.key:
                raise InputError(
                    f"{where}: {shown(each.name)} has id {shown(each.key)}, but id {shown(other)} in {origin[other]}; "
                    "give a class the same id in every split"
                )
            if known is not None and known.name != each.name:
                raise InputError(
                    f"{where}: category id {shown(each.key)} is {shown(each.name)}, but {shown(known.name)} in "
                    f"{origin[each.key]}; give a class the same id in every split"
                )
            joined.setdefault(each.key, each)
            origin.setdefault(each.key, where)
    source = next(iter(splits.values())).where
    parents = {category.name for categories in lists.values() for category in categories if category.key not in joined}
    for name in sorted(parents):
        findings.add("category_parent", f"{source}: category {name!r}")
    for split, categories in lists.items():
        listed = {each.key for each in categories}
        absent = [each.name for key, each in joined.items() if key not in listed]
        missing += [f"{splits[split].where}: {absent[0]!r} is not listed"] * len(absent) if absent else []
    findings.add("categories_joined", missing[0] if missing else "", len(missing))
    result = _ordered(list(joined.values()), source, findings)
    _note_alike(result, source, findings)
    return result


def _read(raw: RawSplit, findings: Findings) -> list[_Category]:
    """Check the categories of a file and return them."""
    table, where = raw.categories, raw.where
    if not len(table.ids):
        raise InputError(f"{where}: 'categories' is empty; list the classes with id and name")
    refuse(
        [i for i, name in enumerate(table.names) if not _is_name(name)],
        lambda i: f"{where}: category {shown(table.ids[i])} has the name {shown(table.names[i])}",
        "give every class a name, in quotation marks",
    )

    def describe(i: int) -> str:
        return f"{where}: categories[{i}] has id {shown(table.ids[i])}"

    keys = read_keys(table.ids, describe)
    findings.add_cases("number_as_text", keys.mended, describe)
    parents = [clean_name(parent) if isinstance(parent, str) else "" for parent in table.parents]
    names = [_safe_name(str(name)) for name in table.names]
    changed = [i for i, name in enumerate(table.names) if names[i] != plain_name(str(name))]
    findings.add_cases("class_name_unsafe", changed, lambda i: f"{where}: category {shown(table.names[i])}")
    return [
        _Category(canonical(key), name, parent) for key, name, parent in zip(table.ids, names, parents, strict=True)
    ]


def _used_keys(raw: RawSplit) -> set[object]:
    column = raw.boxes.category_ids
    try:
        return {canonical(key) for key in set(column)}
    except TypeError:  # an id that is a list or an object; it is refused when the annotations are checked
        return set()


def _without_parents(categories: list[_Category], used: set[object]) -> list[_Category]:
    """Leave out exact duplicates, and categories without boxes that are a supercategory or the background."""
    kept: dict[_Category, None] = {}
    parents = Counter(category.parent for category in categories)
    for category in categories:
        has_children = parents[category.name] > (category.parent == category.name)
        is_above = has_children or category.name.casefold() in _BACKGROUND
        if not is_above or category.key in used:
            kept[category] = None
    return list(kept) or categories


def _refuse_other_ids(where: str, categories: list[_Category]) -> None:
    """Refuse an id or a name that one file uses for two categories."""
    by_key: dict[object, str] = {}
    by_name: dict[str, object] = {}
    for each in categories:
        name, key = by_key.setdefault(each.key, each.name), by_name.setdefault(each.name, each.key)
        if name != each.name:
            names = f"{shown(name)}, {shown(each.name)}"
            raise InputError(f"{where}: category id {shown(each.key)} is used twice ({names}); make ids unique")
        if key != each.key:
            raise InputError(
                f"{where}: category name {shown(each.name)} is used twice (id {shown(each.key)}); make names unique"
            )


def _ordered(categories: list[_Category], where: str, findings: Findings) -> Categories:
    keys = [category.key for category in categories]
    numbered = read_keys(keys, lambda i: f"{where}: category id {shown(keys[i])}")
    repeated = duplicates(numbered.numbers)
    refuse(
        repeated, lambda i: f"{where}: category id {keys[i]} is used twice ({categories[i].name!r})", "make ids unique"
    )
    if numbered.texts is not None:
        findings.add("id_as_text", f"{where}: category id {shown(keys[0])}", len(keys))
    order = np.argsort(numbered.numbers)
    return Categories(
        ids=tuple(int(numbered.numbers[i]) for i in order),
        names=tuple(categories[i].name for i in order),
        keys=tuple(keys[i] for i in order),
    )


def _note_alike(categories: Categories, where: str, findings: Findings) -> None:
    first: dict[str, str] = {}
    for name in categories.names:
        other = first.setdefault(_WORD.sub("", name).casefold() or name, name)
        if other != name:
            findings.add("class_names_alike", f"{where}: {other!r} and {name!r}")


def _is_name(name: object) -> bool:
    return isinstance(name, str) and is_text(name) and bool(_safe_name(name))


def _safe_name(name: str) -> str:
    """Return the cleaned name; of a name of invisible characters alone their numbers."""
    return clean_name(name) or class_name(name.strip())
