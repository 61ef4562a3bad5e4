"""The bundle that a person gives; the error for a folder without a bundle names the bundle next to it."""

from __future__ import annotations

from contextlib import suppress

from kubeyolo.bundle import MANIFEST_NAME, Bundle, read_bundle
from kubeyolo.errors import InputError
from kubeyolo.storage.base import NotFound
from kubeyolo.storage.place import Place
from kubeyolo.training.result import LAST, read_result

_PUBLISHED = "bundle"


def given_bundle(place: Place) -> Bundle:
    """Read the manifest of a bundle that a person gives; see :func:`kubeyolo.bundle.read_bundle`.

    Raises:
        InputError: There is no bundle; the message names the bundle of the training in this folder, if there is one.
    """
    try:
        return read_bundle(place)
    except InputError as error:
        other = other_bundle(place)
        if not other:
            raise
        raise InputError(f"{place}: {other}") from error


def other_bundle(place: Place) -> str:
    """Return which bundle to give for a folder without a bundle; empty if there is none next to it.

    The folder may be the output of a training, or the folder of its last weights, which is missing if the published
    weights are the last.
    """
    if (place / MANIFEST_NAME).exists():
        return ""
    published = place / _PUBLISHED
    if (published / MANIFEST_NAME).exists():
        return f"this is the output of a step, not a bundle; give its bundle: {published}"
    with suppress(InputError, NotFound):
        if place.name == LAST and _last_is_published(place.parent):
            return (
                "the last weights of this training are those of the published bundle; give that bundle: "
                f"{place.parent / _PUBLISHED}"
            )
    return ""


def _last_is_published(output: Place) -> bool:
    choice = read_result(output.store).choice
    return (choice is None or not choice.last) and (output / _PUBLISHED / MANIFEST_NAME).exists()
