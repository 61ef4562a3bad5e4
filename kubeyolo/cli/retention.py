"""``kubeyolo gc | promote``: remove what a store no longer needs, and return to the model that was current before."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from kubeyolo.cli.options import DEFAULT_STORE, JsonOption, StoreOption
from kubeyolo.cli.streams import stored_work
from kubeyolo.cli.tables import new_table, wide_console
from kubeyolo.errors import InputError
from kubeyolo.formats import DASH, counted, size_text
from kubeyolo.models.named_facts import model_facts
from kubeyolo.pointers import check_pointer_name, latest_model
from kubeyolo.retention.reach import Reason, Rules, Survey, survey
from kubeyolo.retention.removal import remove_unreached
from kubeyolo.retention.units import Unit, total_size
from kubeyolo.steps.promote import roll_back
from kubeyolo.storage.place import Place

_UNITS = {"d": "days", "h": "hours", "min": "minutes", "s": "seconds"}
_REASONS: Mapping[Reason, str] = {
    "young": "written within the grace period",
    "running": "a process works in it",
    "unfinished": "an unfinished training, which the same command continues",
    "reached": "a pointer, a bundle or a training needs it",
    "about": "a result of a bundle or a data set that is kept",
    "starting": "possible input of a training that has just started",
    "unreadable": "a document in it cannot be read",
}


def gc(
    store: Annotated[str, typer.Argument(metavar="STORE", help="Store: a folder, or minio://bucket/prefix.")],
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove what is listed; without this option nothing is removed.")
    ] = False,
    grace: Annotated[
        str,
        typer.Option("--grace", metavar="TIME", help="What was written within this time stays: 7d, 12h, 30min, 0s."),
    ] = "7d",
    unfinished: Annotated[
        str,
        typer.Option(
            "--unfinished",
            metavar="TIME",
            help="Also remove unfinished trainings that were not written for this time; by default they stay.",
        ),
    ] = "",
    pointers: Annotated[
        list[str] | None,
        typer.Option(
            "--pointer", metavar="URI", help="A pointer with another name than latest.json, or outside of the store."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List what no pointer, published bundle or training of a store needs, and remove it with --delete.

    Data sets, trainings, results, runs, imported weights and temporary files can be removed; published versions,
    pointers and folders that you have named yourself are never removed.

    [bold]Examples[/bold]

      kubeyolo gc store

      kubeyolo gc minio://kubeyolo --grace 30d --delete

      kubeyolo gc minio://kubeyolo --unfinished 60d --pointer minio://kubeyolo/site-a/current.json
    """
    place = Place.of(store)
    for pointer in pointers or ():
        check_pointer_name(pointer)
    rules = Rules(
        grace=_time("--grace", grace),
        unfinished=_time("--unfinished", unfinished) if unfinished else None,
        pointers=tuple(pointers or ()),
    )
    with stored_work(as_json):
        found = survey(place, rules)
        if not as_json:
            _print_survey(place, found)
        if delete:
            removed, count, size = remove_unreached(place, found, lambda line: print(line, flush=True))
        else:
            removed, count, size = [], 0, 0
    if as_json:
        print(json.dumps(_document(found, removed, delete), indent=1))
        return
    if delete:
        freed = size_text(total_size(removed) + size)
        print(f"removed: {counted(len(removed), 'folder')}, {counted(count, 'remain')} of commands; {freed} freed")
    elif found.unreached or found.remains:
        print("nothing was removed; to remove what is listed, run the same command with --delete")


def promote(
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Return to the model that was current before the present one.")
    ] = False,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="NAME", help="Model whose pointer in the store is moved.")
    ] = "",
    latest: Annotated[
        str, typer.Option("--latest", metavar="URI", help="Pointer to move, if it is not that of the store.")
    ] = "",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Move the pointer to the current model back by one model.

    Retrainings move the pointer forward, and 'kubeyolo publish BUNDLE --latest URI' moves it to any bundle. The
    pointer keeps its last 20 models. It is moved only if nobody else has moved it meanwhile.

    [bold]Examples[/bold]

      kubeyolo promote --rollback --model yolov5n-r7 --store minio://kubeyolo

      kubeyolo promote --rollback --latest minio://kubeyolo/site-a/latest.json
    """
    if not rollback:
        raise InputError(
            "kubeyolo promote moves the pointer to the current model back: add --rollback; to make a bundle current: "
            "kubeyolo publish BUNDLE --latest URI"
        )
    if bool(model) == bool(latest):
        raise InputError("name the pointer by --model NAME or by --latest URI, not by both")
    check_pointer_name(latest)
    root = Place.of(store)
    place = root.at(latest) if latest else latest_model(root, model_facts(model).name)
    pointer = roll_back(place)
    if as_json:
        print(pointer.model_dump_json(indent=1))
        return
    rest = counted(len(pointer.history), "former model")
    print(f"the current model is again {pointer.bundle} ({place}); {rest} in the history")


def _time(option: str, text: str) -> timedelta:
    """Return a time with its unit.

    Raises:
        InputError: It has no known unit.
    """
    match = re.fullmatch(r"(\d{1,6})\s*(d|h|min|s)", text.strip())
    if match is None:
        raise InputError(f"{option} {text!r}: expected a time with its unit (d, h, min, s), such as {option} 7d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _print_survey(store: Place, found: Survey) -> None:
    """Print what is kept, in counts, and each unit that is not needed, with its age and size."""
    roots = f"{counted(len(found.pointers), 'pointer')} and {counted(found.published, 'published bundle')}"
    print(f"{store}: {roots}")
    for reason, count in Counter(found.kept.values()).items():
        print(f"  {counted(count, 'folder')} kept: {_REASONS[reason]}")
    for line in found.unreadable:
        print(f"warning: {line}", file=sys.stderr)
    now = datetime.now(UTC)
    table = new_table("not needed", "what", title=None)
    for column in ("files", "size", "days"):
        table.add_column(column, justify="right")
    for key, unit in found.unreached.items():
        table.add_row(key, unit.kind, f"{len(unit.objects):,}", size_text(unit.size), f"{(now - unit.modified).days}")
    for remains in found.remains:
        name = remains.uri.removeprefix(f"{store.uri}/")
        days = (now - remains.modified).days
        table.add_row(name, "left by a command", DASH, size_text(remains.size), f"{days}")
    if not found.unreached and not found.remains:
        print("everything in this store is needed")
        return
    wide_console().print(table)
    print(_totals(found))


def _totals(found: Survey) -> str:
    """Return counts and sizes by kind."""
    kinds: dict[str, list[Unit]] = {}
    for unit in found.unreached.values():
        kinds.setdefault(unit.kind, []).append(unit)
    parts = [f"{counted(len(units), kind)} ({size_text(total_size(units))})" for kind, units in kinds.items()]
    if found.remains:
        size = sum(each.size for each in found.remains)
        parts.append(f"{counted(len(found.remains), 'remain')} of commands ({size_text(size)})")
    whole = total_size(found.unreached.values()) + sum(each.size for each in found.remains)
    return f"not needed: {', '.join(parts)}; together {size_text(whole)}"


def _document(found: Survey, removed: Iterable[Unit], delete: bool) -> dict[str, Any]:
    return {
        "kept": dict(found.kept),
        "not_needed": [
            {"key": key, "kind": unit.kind, "bytes": unit.size, "modified": unit.modified.isoformat()}
            for key, unit in found.unreached.items()
        ],
        "remains": [{"uri": each.uri, "bytes": each.size} for each in found.remains],
        "delete": delete,
        "removed": [unit.key for unit in removed],
    }
