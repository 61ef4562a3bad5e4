"""How the names of options may be typed: with dashes or underscores, and some as the MindSpore model zoo names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

_OTHER_NAMES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "train": {"training-shape": "image-size", "pretrained-backbone": "backbone"},
        "evaluate": {"testing-shape": "image-size"},
    }
)
"""Options of the model zoo's programs that mean the same as an option here, by command; all with dashes."""


def option_spelling(command: str) -> Callable[[str], str]:
    """Return a function that maps the name of an option, as typed, to the spelling that the parser compares."""
    others = _OTHER_NAMES.get(command, {})

    def spelled(name: str) -> str:
        name = name.replace("_", "-")
        return others.get(name, name)

    return spelled
