"""How options may be typed: with dashes or underscores, and some as the MindSpore model zoo and others type them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from types import MappingProxyType

_OTHER_NAMES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "train": {"training-shape": "image-size", "pretrained-backbone": "backbone"},
        "evaluate": {"testing-shape": "image-size"},
    }
)
"""Options of the model zoo's programs that mean the same as an option here, by command; all with dashes."""

_IMPLIED: Mapping[str, Mapping[str, str]] = MappingProxyType({"train": {"training-shape": "--multi-scale=false"}})
"""Options that an option of the model zoo's programs means in addition, by command: one size for all images."""

_FLAGS: Mapping[str, tuple[str, ...]] = MappingProxyType({"train": ("multi-scale",)})
"""Settings that other programs switch on by their option alone, without a value, by command."""

_BOOLEANS = ("true", "false", "1", "0")


def option_spelling(command: str) -> Callable[[str], str]:
    """Return a function that maps the name of an option, as typed, to the spelling that the parser compares."""
    others = _OTHER_NAMES.get(command, {})

    def spelled(name: str) -> str:
        name = name.replace("_", "-")
        return others.get(name, name)

    return spelled


def complete_options(command: str, arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command with what its options mean in addition, and with values for flags."""
    return list(_completed(_IMPLIED.get(command, {}), _FLAGS.get(command, ()), arguments))


def _completed(implied: Mapping[str, str], flags: Sequence[str], arguments: Sequence[str]) -> Iterator[str]:
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        option, equals, _ = argument.partition("=")
        name = option.removeprefix("--").replace("_", "-") if option.startswith("--") else ""
        if name in implied:
            yield implied[name]
        is_alone = name in flags and not equals and following.lower() not in _BOOLEANS
        yield f"{option}=true" if is_alone else argument
