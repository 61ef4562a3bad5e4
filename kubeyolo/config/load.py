"""Configuration from layers: the preset of a model, a file, ``key=value`` pairs; later layers override earlier layers.

The origin of each value is kept, so that an error shows the key, the value, its origin, and the allowed values.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from kubeyolo.config.foreign_words import ABSENT, meant_keys, plain_word
from kubeyolo.config.key_types import expected, key_types
from kubeyolo.config.schema import Config
from kubeyolo.config.text import read_text
from kubeyolo.config.text_file import read_text_file
from kubeyolo.errors import InputError, check_known, one_line, problem_of, split_pair, suggest
from kubeyolo.regular_files import CONFIGURATION_SIZE

DEFAULT_MODEL = "yolov5n-r7"

BANDS = ("often changed", "sometimes changed", "leave alone")
"""Bands of the keys in a preset."""

GATES = frozenset({"evaluate.min_ap", "evaluate.judge"})
"""Settings that decide whether a result passes and do not change it; see :func:`without_gates`, :func:`ungated`."""

_PRESETS = Path(__file__).with_name("presets")
_BASE_KEY = "extends"
_BAND = re.compile(r"# ---- (.+) ----")

RECIPE_ORIGIN = "recipe "
"""Start of the origin of values from a recipe."""

Layer = tuple[str, dict[str, Any]]
"""Origin of values, and the values by dotted key."""


@dataclass(frozen=True)
class ResolvedConfig:
    """A configuration and the origins of its values.

    Attributes:
        config: The configuration.
        origins: Origin by dotted key; keys without an origin have the default of the schema.
    """

    config: Config
    origins: Mapping[str, str]

    def is_set(self, key: str) -> bool:
        """Tell whether the value of a dotted key was chosen, so it is not from a default, a preset or a recipe."""
        usual = _preset_origin(self.config.model)
        origin = self.origins.get(key, usual)
        return origin != usual and not origin.startswith(RECIPE_ORIGIN)


def load_config(model: str | None = None, file: Path | str | None = None, sets: Sequence[str] = ()) -> Config:
    """Return the configuration of a model; see :func:`load_resolved`."""
    return load_resolved(model, file, sets).config


def load_resolved(model: str | None = None, file: Path | str | None = None, sets: Sequence[str] = ()) -> ResolvedConfig:
    """Return the configuration of a model with the origins of its values.

    Args:
        model: Name of the model. If it is None, the file or a ``model=`` pair names the model; otherwise it is
            :data:`DEFAULT_MODEL`.
        file: YAML file of values, which override the preset's values.
        sets: ``key=value`` pairs with dotted keys and JSON or YAML values; they override the file's values.

    Raises:
        InputError: An unknown model or key, a value of the wrong type or out of its range, an unreadable file, or two
            models.
    """
    pairs = parse_sets(sets)
    if model and pairs.get("model", model) != model:
        raise InputError(f"two models: {model!r}, and {pairs['model']!r} by --set model; leave one of them out")
    layers: list[Layer] = []
    if file is not None:
        layers.append((str(file), flatten(read_mapping(Path(file)), str(file))))
    layers.append(("--set", pairs))
    return resolve_layers(model, layers)


def resolve_layers(model: str | None, layers: Sequence[Layer]) -> ResolvedConfig:
    """Return the configuration from layers: each layer overrides earlier layers, and all override the model's preset.

    Args:
        model: Name of the model. If it is None, the last layer with ``model`` names the model; otherwise it is
            :data:`DEFAULT_MODEL`.
        layers: Origins, and values by dotted key.

    Raises:
        InputError: An unknown model, or a value of the wrong type or out of its range.
    """
    named = [(origin, values["model"]) for origin, values in layers if "model" in values]
    origin, name = named[-1] if named else ("", DEFAULT_MODEL)
    if model:
        origin, name = "", model
    return _validate([(_preset_origin(name), preset(name, origin)), *layers], str(name))


def _preset_origin(model: Any) -> str:
    return f"preset {model}"


def sparse_values(file: Path | str | None = None, sets: Sequence[str] = ()) -> dict[str, Any]:
    """Return only the values of the file and the pairs, nested by section.

    Raises:
        InputError: An unreadable file or a pair without ``=``.
    """
    merged = flatten(read_mapping(Path(file)), str(file)) if file is not None else {}
    merged |= parse_sets(sets)
    return nest(merged)


def preset_names() -> tuple[str, ...]:
    """Return the names of the models that have a preset."""
    names = (entry.name for entry in _PRESETS.iterdir())
    return tuple(sorted(name[:-5] for name in names if name.endswith(".yaml") and not name.startswith("_")))


def preset(model: str, origin: str = "") -> dict[str, Any]:
    """Return the values of a model's preset by dotted key.

    Raises:
        InputError: No preset has this name; the message suggests the nearest name.
    """
    check_known("model", model, preset_names(), origin)
    return {**_preset_values(model), "model": model}


def preset_bands(model: str) -> dict[str, tuple[str, ...]]:
    """Return the keys of a model's preset by band, in the order of the files.

    Raises:
        InputError: No preset has this name; the message suggests the nearest name.
    """
    preset(model)
    band_of = _bands_of_keys(model)
    return {band: tuple(key for key, its in band_of.items() if its == band) for band in BANDS}


def with_values(resolved: ResolvedConfig, values: Mapping[str, Any], origin: str) -> ResolvedConfig:
    """Return a configuration with other values of dotted keys, which have this origin.

    Args:
        resolved: The configuration.
        values: Allowed values by dotted key.
        origin: Where the values come from.
    """
    sections = {
        name: getattr(resolved.config, name).model_copy(update=section) for name, section in nest(values).items()
    }
    origins = {**resolved.origins, **dict.fromkeys(values, origin)}
    return ResolvedConfig(resolved.config.model_copy(update=sections), origins)


def config_digest(value: BaseModel | Mapping[str, Any]) -> str:
    """Return the sha256 of a configuration, or of a part of it, in canonical JSON."""
    content = value.model_dump(mode="json") if isinstance(value, BaseModel) else dict(value)
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def without_gates(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return settings by section without those in ``GATES``."""
    return {
        section: {key: value for key, value in settings.items() if f"{section}.{key}" not in GATES}
        for section, settings in sections.items()
    }


def ungated(config: Config) -> Config:
    """Return a configuration whose results pass every gate."""
    return config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"min_ap": 0.0, "judge": "point"})})


def section_fields() -> dict[str, dict[str, FieldInfo]]:
    """Return the fields of each section by its name; a top-level key that is not a section has no fields."""
    sections = {name: _section_of(field.annotation) for name, field in Config.model_fields.items()}
    return {name: dict(section.model_fields) if section else {} for name, section in sections.items()}


def known_keys() -> tuple[str, ...]:
    """Return every dotted key of the configuration."""
    return tuple(
        f"{name}.{key}" if key else name for name, fields in section_fields().items() for key in fields or ("",)
    )


def mapping_keys() -> tuple[str, ...]:
    """Return the dotted keys whose value is a mapping; each entry of the mapping has its own dotted key."""
    return tuple(
        f"{name}.{key}"
        for name, fields in section_fields().items()
        for key, field in fields.items()
        if get_origin(field.annotation) is dict
    )


def parse_sets(sets: Iterable[str]) -> dict[str, Any]:
    """Return the values of ``key=value`` pairs by dotted key; values are JSON or YAML.

    Raises:
        InputError: A pair without ``=`` or without a key, or a value that is not JSON or YAML.
    """
    values: dict[str, Any] = {}
    for pair in sets:
        key, text = split_pair(pair, "--set", "train.max_epoch=10")
        values |= flatten({key: read_value(key, text, f"--set {one_line(pair, 80)!r}")}, "--set")
    return values


def read_value(key: str, text: str, what: str) -> Any:
    """Return the value that was typed for a dotted key, as JSON or YAML.

    If the key is a text or a list of texts, a text that starts with ``*``, such as ``*.bias``, needs no quotes: in YAML
    it would be an alias, which is refused anyway.

    Args:
        key: The dotted key.
        text: The text that was typed.
        what: Origin of the text, for errors.

    Raises:
        InputError: The text is not JSON or YAML.
    """
    if text.lstrip().startswith("*") and key in key_types() and key_types()[key].has_texts:
        return text.strip()
    return read_text(text, what)


def _preset_values(name: str) -> dict[str, Any]:
    content = read_mapping(_PRESETS / f"{name}.yaml", "preset")
    base = content.pop(_BASE_KEY, None)
    values = _preset_values(base) if base else {}
    return values | flatten(content, f"preset {name}")


def _bands_of_keys(name: str) -> dict[str, str]:
    """Return the band of each key of a preset, from its own file and from the file that it extends."""
    path = _PRESETS / f"{name}.yaml"
    text = read_text_file(path)
    base = read_mapping(path, "preset").get(_BASE_KEY)
    found = _bands_of_keys(base) if base else {}
    band = ""
    for line in text.splitlines():
        if heading := _BAND.fullmatch(line.strip()):
            band = heading[1]
        elif band and (key := re.match(r"[a-z_]+\.[a-z_]+", line)):
            found[key[0]] = band
    return found


def read_mapping(path: Path, what: str = "configuration") -> dict[str, Any]:
    """Read a JSON or YAML file of keys and values.

    Raises:
        InputError: The file cannot be read, is not JSON or YAML, or is not a mapping; the message starts with ``what``.
    """
    text = read_text_file(path, what, CONFIGURATION_SIZE)
    content = read_text(text, f"{what} {path}")
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{what} {path}: expected keys and values at the top level, not a {type(content).__name__}")
    return content


def flatten(values: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Return nested or dotted values by dotted key.

    Raises:
        InputError: A key is unknown, or a section has a value instead of keys; the message names the origin.
    """
    known = known_keys()
    sections = {key.split(".")[0] for key in known if "." in key}
    mappings = mapping_keys()
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key)
        mapping = ".".join(name.split(".")[:2])
        if name in sections:
            if value is None:
                continue
            if not isinstance(value, Mapping):
                raise InputError(f"{name} (from {origin}) is {value!r}: it is a section, expected keys below it")
            found = flatten({f"{name}.{inner}": each for inner, each in value.items()}, origin)
        elif mapping in mappings:
            found = _entries(name, mapping, value, origin)
        elif name in known:
            found = {name: value}
        else:
            name = _named_inside(name, value, sections)
            raise InputError(f"unknown configuration key {name!r} (from {origin}){_nearest_key(name, known)}")
        _refuse_twice(flat, found, origin)
        flat |= found
    return flat


def _named_inside(name: str, value: Any, sections: Iterable[str]) -> str:
    """Return the first key below an unknown section that has a counterpart, else the name of the section."""
    if not isinstance(value, Mapping) or difflib.get_close_matches(name, list(sections), n=1):
        return name
    last_words = {key.rsplit(".", 1)[-1] for key in known_keys()}
    inner = (f"{name}.{key}" for key in value)
    return next((key for key in inner if meant_keys(key, sections) or plain_word(key) in last_words), name)


def _entries(name: str, mapping: str, value: Any, origin: str) -> dict[str, Any]:
    """Return the entries of a key that is a mapping, by dotted key: all entries, or the entry that ``name`` names."""
    if name != mapping:
        return {name: value}
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{name} (from {origin}) is {value!r}: expected names and values below it")
    return {f"{name}.{inner}": each for inner, each in value.items()}


def allowed_values(values: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """Return the values of sections that this version knows and allows, and the dotted keys of all other values.

    Args:
        values: Values by section, possibly written by a different version.
    """
    allowed: dict[str, dict[str, Any]] = {}
    gone: list[str] = []
    for name, section in values.items():
        owner = _section_of(Config.model_fields[name].annotation) if name in Config.model_fields else None
        if owner is None or not isinstance(section, Mapping):
            gone.append(name)
            continue
        for key, value in section.items():
            try:
                owner.model_validate({key: value})
            except ValidationError:
                gone.append(f"{name}.{key}")
            else:
                allowed.setdefault(name, {})[key] = value
    return allowed, tuple(gone)


def _refuse_twice(flat: Mapping[str, Any], names: Iterable[str], origin: str) -> None:
    twice = [name for name in names if name in flat]
    if twice:
        raise InputError(f"{twice[0]} is given twice (from {origin}): nested and with a dot; leave one of them out")


def _nearest_key(name: str, known: Sequence[str]) -> str:
    """Suggest the key that other programs call so, else a key with the same last part, else the nearest spelling."""
    last = plain_word(name)
    same = list(meant_keys(name, {key.partition(".")[0] for key in known if "." in key}))
    same = same or [key for key in known if key.rsplit(".", 1)[-1] == last]
    if same:
        return f"; did you mean {' or '.join(repr(key) for key in same)}?"
    if last in ABSENT:
        return f"; {ABSENT[last]}"
    section = [key for key in known if "." in name and key.startswith(name.split(".")[0] + ".")]
    if section:
        return suggest(name, section)
    by_word = {key.rsplit(".", 1)[-1]: key for key in known}
    nearest = difflib.get_close_matches(last, list(by_word), n=1, cutoff=0.6)
    return f"; did you mean {by_word[nearest[0]]!r}?" if nearest else suggest(name, known)


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by dotted key as sections of keys."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, name = key.split(".")
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[name] = value
    return nested


def _validate(layers: Sequence[Layer], model: str) -> ResolvedConfig:
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, values in layers:
        merged |= values
        origins |= dict.fromkeys(values, origin)
    merged["model"] = model
    try:
        return ResolvedConfig(Config.model_validate(nest(merged)), origins)
    except ValidationError as error:
        key = problem_of(error).key
        key = key if key in merged else ".".join(key.split(".")[:2])
        value = merged.get(key)
        origin = origins.get(key, "the defaults")
        raise InputError(f"{key} = {value!r} (from {origin}) is not allowed: {expected(key)}") from error


def _section_of(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
