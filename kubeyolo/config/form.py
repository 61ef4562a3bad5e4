"""The form of a run: the fields that people fill in, all of them texts, and the resulting configuration.

Some settings have a field under the name of their key (the schema marks them); the field ``settings`` has all other
settings, nested as in a configuration file, as JSON or YAML text. If a field is empty, the preset's value is used.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from kubeyolo.catalogue import FIELDS
from kubeyolo.config.foreign_words import ABSENT, meant_keys, plain_word
from kubeyolo.config.load import (
    DEFAULT_MODEL,
    Layer,
    ResolvedConfig,
    flatten,
    nest,
    resolve_layers,
    section_fields,
    sparse_values,
)
from kubeyolo.config.text import read_text
from kubeyolo.errors import InputError, one_line, suggest

MODEL, SETTINGS = "model", "settings"
_NESTED = (SETTINGS, "cluster")
"""Fields that may be mappings in a file."""


@cache
def setting_fields() -> Mapping[str, str]:
    """Return the dotted key of each setting that has a field of its own, by the name of the field."""
    return {
        name: f"{section}.{name}"
        for section, fields in section_fields().items()
        for name, field in fields.items()
        if isinstance(extra := field.json_schema_extra, dict) and extra.get("in_form")
    }


def describe_field(name: str) -> str:
    """Return a description of a field of a form."""
    key = setting_fields().get(name)
    if key is None:
        return FIELDS[name]
    section, _, setting = key.partition(".")
    description = section_fields()[section][setting].description or ""
    if "if empty," in description:
        return description
    return f"{description.rstrip('.')}; if empty, the preset's value of {key} is used."


def resolve_form(
    form: Mapping[str, str], model: str = "", kept: Mapping[str, Mapping[str, Any]] | None = None
) -> ResolvedConfig:
    """Return the configuration of a filled-in form.

    Args:
        form: Text by field; fields that are not settings are ignored.
        model: Name of the model if the form has no field for it.
        kept: Values by section that override the preset, such as the settings in a bundle; the form overrides them.

    Raises:
        InputError: A key or a value is wrong, or a setting is given both by its field and in ``settings``.
    """
    text = form.get(SETTINGS, "")
    nested = flatten(read_settings(text), f"the field {SETTINGS}")
    layers: list[Layer] = [("the bundle", flatten(kept, "the bundle"))] if kept else []
    layers.append((f"the field {SETTINGS}", nested))
    for field, key in setting_fields().items():
        value = str(form.get(field, "")).strip()
        if not value:
            continue
        if key in nested:
            raise InputError(
                f"{key} is given twice: {value!r} by the field {field}, and {nested[key]!r} in the field {SETTINGS}; "
                "leave one of them out"
            )
        layers.append((f"the field {field}", {key: value}))
    if MODEL in nested:
        raise InputError(
            f"model = {nested[MODEL]!r} in the field {SETTINGS}: choose it with the field {MODEL}; an evaluation uses "
            "the model of its bundle"
        )
    chosen = str(form.get(MODEL, "")).strip()
    return resolve_layers(chosen or model or None, layers)


def read_settings(text: str) -> dict[str, Any]:
    """Return the nested values in the text of the field ``settings``.

    Raises:
        InputError: The text is not JSON or YAML, or not a mapping.
    """
    values = read_text(text, f"the field {SETTINGS}")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(
            f"the field {SETTINGS} is {one_line(text, 80)!r}: expected sections of keys and values, such as "
            "{train: {seed: 1}}"
        )
    return values


def fill_form(
    names: Collection[str],
    model: str | None = None,
    file: Path | str | None = None,
    sets: Sequence[str] = (),
    **fields: str,
) -> dict[str, str]:
    """Return the form for a command line: a key with a field fills its field, all other keys go into ``settings``.

    Args:
        names: Names of the fields of the form.
        model: Name of the model; ignored if the form has no field for it.
        file: YAML file of settings.
        sets: ``key=value`` pairs, which override the file's values.
        **fields: Fields that are not settings.

    Raises:
        InputError: The file cannot be read, or a key is unknown.
    """
    values = flatten(sparse_values(file, sets), "--config and --set")
    name = model or values.pop(MODEL, None) or DEFAULT_MODEL
    values.pop(MODEL, None)
    keys = {key: field for field, key in setting_fields().items() if field in names}
    form = {keys[key]: _text(value) for key, value in values.items() if key in keys}
    rest = nest({key: value for key, value in values.items() if key not in keys})
    form |= {MODEL: str(name)} if MODEL in names else {}
    form |= {SETTINGS: _text(rest)} if rest else {}
    return form | {field: value for field, value in fields.items() if value}


def check_fields(form: Mapping[str, Any], known: Sequence[str], required: Sequence[str] = ()) -> dict[str, str]:
    """Return the fields of a form as texts.

    Args:
        form: Value by field: texts, or numbers and mappings as people write them into files.
        known: Names of the fields of the pipeline.
        required: Names of fields that must not be empty.

    Raises:
        InputError: A field is unknown, a text is written as a number, or a required field is empty.
    """
    for name, value in form.items():
        if name not in known:
            raise InputError(f"unknown field {name!r}{_nearest_field(str(name), known)}")
        if name not in (*setting_fields(), *_NESTED) and value is not None and not isinstance(value, str):
            raise InputError(f"the field {name!r} is {one_line(value, 80)}, not a text: write it in quotes")
    check_filled(form, required)
    return {name: _text(value) for name, value in form.items() if value is not None}


def says_the_same(name: str, one: str, other: str) -> bool:
    """Tell whether two texts of a field have the same value, such as ``0.020`` and ``0.02`` of a setting.

    Raises:
        InputError: The texts differ, and one of them cannot be read.
    """
    if one.strip() == other.strip():
        return True
    if name not in (*setting_fields(), *_NESTED):
        return False
    return bool(read_text(one, f"the field {name}") == read_text(other, f"the field {name}"))


def check_filled(form: Mapping[str, Any], required: Sequence[str]) -> None:
    """Refuse a form with an empty required field.

    Raises:
        InputError: A required field is empty; the message describes the field.
    """
    for name in required:
        if form.get(name) in (None, ""):
            raise InputError(f"the field {name!r} is empty ({describe_field(name).rstrip('.')})")


def _nearest_field(name: str, known: Sequence[str]) -> str:
    """Suggest a field, or how to write a key without a field into ``settings``."""
    by_section = section_fields()
    meant = meant_keys(name, by_section)
    fields = [field for field, key in setting_fields().items() if key in meant and field in known]
    if fields:
        return f"; did you mean {' or '.join(repr(field) for field in fields)}?"
    keys = [key.split(".") for key in meant] or [
        [section, name] for section, keys in by_section.items() if name in keys
    ]
    same = [f"{{{section}: {{{key}: …}}}}" for section, key in keys]
    if name != MODEL and name in by_section and not by_section[name]:
        same = [f"{{{name}: …}}"]
    if not same and plain_word(name) in ABSENT:
        return f"; {ABSENT[plain_word(name)]}"
    if same and SETTINGS in known:
        return f"; it has no field: write {' or '.join(same)} into the field {SETTINGS}"
    return suggest(name, known)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
