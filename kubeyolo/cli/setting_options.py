"""An option for each setting that a step's command reads: ``--max_epoch 50`` means ``--set train.max_epoch=50``.

The options are made from the schema: a new key has an option without further work. Names can be typed with underscores
or dashes.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, get_args

import typer

from kubeyolo.catalogue import STEPS
from kubeyolo.config.key_types import KeyType, key_types
from kubeyolo.config.load import (
    BANDS,
    DEFAULT_MODEL,
    known_keys,
    mapping_keys,
    parse_sets,
    preset,
    preset_bands,
    preset_names,
    read_value,
    resolve_layers,
)
from kubeyolo.errors import InputError

STEP_OF = {
    "pretrain": "pretrain_backbone",
    "train": "train",
    "evaluate": "evaluate",
    "export": "export_model",
    "quantize": "quantize",
}
"""Steps by command; each of these commands has an option for each setting that its step reads."""

_WITHOUT_SECTION = {"train": ("recipe",)}
"""Keys without a section by command, which the command resolves into values of the settings that its step reads."""

ON_BUNDLES = ("evaluate", "export", "quantize")
"""Commands whose settings come from a bundle instead of a preset."""

_PREFIX = "setting_"


def with_setting_options(command: str, function: Callable[..., None], given: Sequence[str] = ()) -> Callable[..., None]:
    """Return the function of a command with an option for each of its settings, which become pairs of ``--set``.

    Args:
        command: Name of the command.
        function: The function; it has a parameter ``sets``. Its own options replace options of settings.
        given: The arguments that were typed; the help has the defaults of the model that they name.
    """
    if command not in STEP_OF:
        return function
    own = inspect.signature(function, eval_str=True)
    taken = {option for parameter in own.parameters.values() for option in _options_of(parameter)}
    keys = {name: key for name, key in setting_keys(command).items() if f"--{name}" not in taken}
    options = [each for name, each in _parameters(command, _named_model(given)).items() if name in keys]

    @functools.wraps(function)
    def call(**values: Any) -> None:
        typed = {name: values.pop(f"{_PREFIX}{name}", None) or () for name in keys}
        values["sets"] = merged_sets(values.get("sets") or (), typed, keys)
        function(**values)

    signature = own.replace(parameters=[*own.parameters.values(), *options])
    call.__signature__ = signature  # type: ignore[attr-defined]
    call.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
    return call


def setting_keys(command: str) -> dict[str, str]:
    """Return the dotted key of each setting that a command reads, by the name of its option.

    If two sections have a key of the same name, the option means the key of the command's own section.
    """
    reads = sorted(STEPS[STEP_OF[command]].reads, key=lambda each: each.partition(".")[0] != command)
    reads += _WITHOUT_SECTION.get(command, ())
    mappings = mapping_keys()
    single = [key for key in known_keys() if key not in mappings]
    keys: dict[str, str] = {}
    for each in reads:
        for key in single:
            if each in (key, key.partition(".")[0]):
                keys.setdefault(key.rpartition(".")[2], key)
    return keys


def merged_sets(sets: Sequence[str], typed: Mapping[str, Sequence[str]], keys: Mapping[str, str]) -> list[str]:
    """Return pairs of ``--set``, and the pairs that the options of settings stand for.

    Args:
        sets: Pairs of ``--set``.
        typed: The texts of each option by its name.
        keys: The dotted key of each option by its name.

    Raises:
        InputError: A value is not allowed, or a setting is given twice with different values.
    """
    before = {key: (f"--set {key}", value) for key, value in parse_sets(sets).items()}
    pairs = list(sets)
    for name, texts in typed.items():
        for text in texts:
            key, option = keys[name], f"--{name}"
            value = read_value(key, text, f"{option} {text}")
            checked = _checked(key, value, option)
            if key not in before:
                pairs.append(f"{key}={text}")
                before[key] = (option, value)
                continue
            other, first = before[key]
            if _checked(key, first, other) != checked:
                raise InputError(
                    f"{key} is given twice: {first!r} by {other}, and {value!r} by {option}; leave one of them out"
                )
    return pairs


def _checked(key: str, value: Any, origin: str) -> Any:
    return resolve_layers(None, [(origin, {key: value})]).config.value(key)


def _options_of(parameter: inspect.Parameter) -> Iterator[str]:
    for each in get_args(parameter.annotation):
        if isinstance(each, typer.models.OptionInfo):
            # In an annotation typer keeps the first name as the default; a flag and its opposite are one name.
            for name in (each.default, *(each.param_decls or ())):
                yield from str(name).split("/")


def _named_model(given: Sequence[str]) -> str:
    """Return the model that a command line names, or the default model."""
    names = [value for option, value in zip(given, given[1:], strict=False) if option in ("--model", "-m")]
    names += [each.partition("=")[2] for each in given if each.startswith("--model=")]
    return next((name for name in names if name in preset_names()), DEFAULT_MODEL)


@functools.cache
def _parameters(command: str, model: str) -> dict[str, inspect.Parameter]:
    """Return a parameter for each setting of a command by the name of its option, in the order of the help."""
    types = key_types()
    values, bands = preset(model), preset_bands(model)
    panels = {key: _panel(command, band, model) for band in BANDS for key in bands[band]}
    usual = _panel(command, "sometimes changed", model)
    order = {_panel(command, band, model): at for at, band in enumerate(BANDS)}
    parameters = []
    for name, key in setting_keys(command).items():
        default = "" if command in ON_BUNDLES else _default_text(values.get(key, types[key].default))
        panel = panels.get(key, usual)
        option = typer.Option(
            f"--{name}", metavar=types[key].name.upper(), help=_help(types[key], default), rich_help_panel=panel
        )
        annotation = Annotated[list[str] | None, option]
        parameter = inspect.Parameter(
            f"{_PREFIX}{name}", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
        )
        parameters.append((order[panel], name, parameter))
    return {name: parameter for _, name, parameter in sorted(parameters, key=lambda each: each[0])}


def _panel(command: str, band: str, model: str) -> str:
    if command in ON_BUNDLES:
        return "Settings; without an option, the value in the bundle"
    texts = {
        BANDS[0]: f"Settings often changed; defaults of {model} (for other models: --model NAME --help)",
        BANDS[1]: "Settings sometimes changed",
        BANDS[2]: "Settings to leave alone",
    }
    return texts[band]


def _help(key_type: KeyType, default: str) -> str:
    """Return the description of a key with its range and default; brackets are escaped for rich."""
    notes = [key_type.range or ("true or false" if key_type.name == "bool" else "")]
    notes.append(f"default {default}" if default else "")
    note = "; ".join(each for each in notes if each)
    text = key_type.schema["description"] + (f" [{note}]" if note else "")
    return text.replace("[", "\\[")


def _default_text(value: Any) -> str:
    if value in ("", [], ()):
        return "empty"
    return value if isinstance(value, str) else json.dumps(value)
