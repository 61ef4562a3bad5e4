"""Which units of a store are still needed: those that a pointer, a published bundle or a training reaches.

A unit is kept for one of these reasons, the first that applies:

=============  ======================================================================================
reason         the unit
=============  ======================================================================================
running        is an output that a process has claimed
young          was written within the grace period
unfinished     is a training that can be continued
unreadable     has a document that cannot be read
starting       may be the input of a training that has just started and does not say what it starts from
reached        is named by a pointer or its history, by a published or a named bundle, or by a unit that
               is kept for a reason above this line, directly or through other units
about          is a result or a run without a bundle of its own, about a bundle or a data set that is kept
=============  ======================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from kubeyolo.bundle import LATEST
from kubeyolo.bundle import MANIFEST_NAME as BUNDLE_NAME
from kubeyolo.errors import InputError
from kubeyolo.pointers import ENDING, pointed_uris
from kubeyolo.progress import Progress
from kubeyolo.retention.remains import Remains, remains_of
from kubeyolo.retention.units import (
    TRAINED,
    Facts,
    Unit,
    bundle_facts,
    facts_of,
    names_of,
    training_needs,
    units_of,
)
from kubeyolo.storage.base import Listing, for_each
from kubeyolo.storage.claim import CLAIM_NAME, is_claimed
from kubeyolo.storage.place import Place
from kubeyolo.training.checkpoints import MANIFEST_NAME as CHECKPOINT_NAME

Reason = Literal["young", "running", "unfinished", "reached", "about", "starting", "unreadable"]

BEATING = timedelta(hours=1)
"""A claim that was not written for this time has no heartbeat: a living owner writes it every few seconds."""

_INPUTS = frozenset({"datasets", "backbones", "weights"})


@dataclass(frozen=True)
class Rules:
    """What is kept although no pointer and no published bundle reaches it.

    Attributes:
        grace: Units that were written within this time are kept, with everything that they were made from.
        unfinished: Unfinished trainings that were not written for this time are not kept; None: all of them are kept.
        pointers: URIs of pointers outside of the store, or with other names than ``latest.json``.
    """

    grace: timedelta
    unfinished: timedelta | None = None
    pointers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Survey:
    """The content of a store.

    Attributes:
        kept: The reason for each kept unit.
        unreached: The units that are not kept, by key.
        remains: What interrupted commands have left.
        unreadable: Messages about documents of units that cannot be read.
        pointers: URIs of the pointers that were read.
        published: Number of published bundles.
    """

    kept: Mapping[str, Reason]
    unreached: Mapping[str, Unit]
    remains: Sequence[Remains]
    unreadable: Sequence[str] = ()
    pointers: Sequence[str] = ()
    published: int = 0


@dataclass
class _Content:
    """The documents of a store: facts of units by key, and what was not readable."""

    facts: dict[str, Facts] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


def survey(store: Place, rules: Rules) -> Survey:
    """Read a store and find out which of its units are needed.

    Args:
        store: The store.
        rules: What is kept in addition.

    Raises:
        InputError: The place is not a store, or a pointer or a published bundle cannot be read: then nothing may be
            removed, since it is not known what it names.
    """
    listing = store.store.list()
    units = units_of(listing)
    outside = [stored.key for stored in listing if not _is_in(stored.key, units)]
    bundles = [key for key in outside if key.rpartition("/")[2] == BUNDLE_NAME]
    pointers = _pointers(store, outside, rules.pointers)
    remains = remains_of(store, listing, datetime.now(UTC) - rules.grace)
    if not units and not bundles and not pointers and not remains:
        raise InputError(f"{store}: there is nothing of kubeyolo in this store; correct the URI")
    content = _read(store, units.values())
    named = _named_trainings(store, listing, outside)
    roots = {name for names in pointers.values() for name in names} | named.needs
    provided: set[str] = set()
    for key in bundles:
        facts = bundle_facts(store.store.read_bytes(key), store.store.uri_of(key))
        roots |= facts.needs
        provided |= {*facts.provides, key.removesuffix(f"/{BUNDLE_NAME}")}
    kept = _first_reasons(store, units, content, rules, is_starting=named.is_starting)
    _reach(units, content.facts, kept, roots - {""})
    names = provided | {name for key in kept for name in (key, *_facts(content, key).provides)}
    for key, facts in content.facts.items():
        if key not in kept and not facts.has_bundle and facts.subjects & names:
            kept[key] = "about"
    return Survey(
        kept=kept,
        unreached={key: unit for key, unit in sorted(units.items()) if key not in kept},
        # What is in a unit is kept and removed with the unit.
        remains=[each for each in remains if not any(each.uri.startswith(f"{store.uri}/{key}/") for key in units)],
        unreadable=tuple(content.unreadable.values()),
        pointers=tuple(pointers),
        published=len(bundles),
    )


def is_running(store: Place, unit: Unit) -> bool:
    """Tell whether a process has claimed a unit."""
    claim = next((stored for stored in unit.objects if stored.key == f"{unit.key}/{CLAIM_NAME}"), None)
    if claim is None:
        return False
    is_beating = claim.modified is None or datetime.now(UTC) - claim.modified < BEATING
    return is_claimed(store.store.child(unit.key), is_beating)


def _is_in(key: str, units: Mapping[str, Unit]) -> bool:
    parts = key.split("/")
    return any("/".join(parts[:count]) in units for count in (2, 3))


def _pointers(store: Place, keys: Iterable[str], others: Sequence[str]) -> dict[str, set[str]]:
    """Return the names that each pointer reaches, by the URI of the pointer."""
    names = [
        key
        for key in keys
        if key.rpartition("/")[2] == LATEST
        or (key.startswith("models/") and key.count("/") == 2 and key.endswith(ENDING))
    ]
    places = [*(store / key for key in names), *(store.at(uri) for uri in others)]
    return {place.uri: {name for uri in pointed_uris(place) for name in names_of(uri)} for place in places}


def _read(store: Place, units: Iterable[Unit]) -> _Content:
    content, several = _Content(), list(units)

    def read(unit: Unit) -> None:
        try:
            content.facts[unit.key] = facts_of(store, unit)
        except InputError as error:
            content.unreadable[unit.key] = str(error)
        progress.advance()

    with Progress(f"reading {store}", len(several)) as progress:
        for_each(read, several, store.store.threads)
    return content


class _NamedTrainings(NamedTuple):
    """The needs of trainings in outputs that people have named, and whether one has started and names no inputs yet."""

    needs: set[str]
    is_starting: bool


def _named_trainings(store: Place, listing: Listing, outside: Sequence[str]) -> _NamedTrainings:
    keys = {key for key in outside if key.rpartition("/")[2] in (CLAIM_NAME, CHECKPOINT_NAME)}
    checkpoints = [key for key in keys if not key.endswith(CLAIM_NAME)]
    needs = {name for key in checkpoints for name in training_needs(store, key)}
    outputs = {key.rpartition("/")[0] for key in keys if key.endswith(CLAIM_NAME)}
    known = {output for output in outputs for key in checkpoints if key.startswith(f"{output}/")}
    starting = (
        Unit(output, tuple(stored for stored in listing if stored.key == f"{output}/{CLAIM_NAME}"))
        for output in sorted(outputs - known)
    )
    return _NamedTrainings(needs, any(is_running(store, unit) for unit in starting))


def _first_reasons(
    store: Place, units: Mapping[str, Unit], content: _Content, rules: Rules, is_starting: bool
) -> dict[str, Reason]:
    """Return the units that are kept for what they are, and possible inputs of trainings that name none yet."""
    now, kept = datetime.now(UTC), dict[str, Reason]()
    for key, unit in units.items():
        age, facts = now - unit.modified, _facts(content, key)
        if unit.room in TRAINED and is_running(store, unit):
            kept[key] = "running"
            is_starting = is_starting or not facts.has_inputs
        elif age < rules.grace:
            kept[key] = "young"
        elif facts.is_unfinished and (rules.unfinished is None or age < rules.unfinished):
            kept[key] = "unfinished"
        elif key in content.unreadable:
            kept[key] = "unreadable"
    if is_starting:
        kept |= {key: "starting" for key, unit in units.items() if unit.room in _INPUTS and key not in kept}
    return kept


def _reach(units: Mapping[str, Unit], facts: Mapping[str, Facts], kept: dict[str, Reason], roots: set[str]) -> None:
    """Add the units that roots and kept units need, directly or through other units."""
    providers: dict[str, set[str]] = {key: {key} for key in units}
    for key, each in facts.items():
        for name in each.provides:
            providers.setdefault(name, set()).add(key)
    waiting = [*roots, *(name for key in kept if key in facts for name in facts[key].needs)]
    while waiting:
        for key in providers.get(waiting.pop(), ()):
            if key not in kept:
                kept[key] = "reached"
                waiting += facts[key].needs if key in facts else ()


def _facts(content: _Content, key: str) -> Facts:
    return content.facts.get(key) or Facts()
