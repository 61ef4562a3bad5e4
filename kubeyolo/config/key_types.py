"""What each key of the configuration accepts, in words for tables and for the help of commands."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from kubeyolo.config.schema import Config

_TYPES = {"integer": "int", "number": "float", "boolean": "bool", "string": "text"}
_BOUNDS = (("exclusiveMinimum", "> "), ("minimum", "≥ "), ("exclusiveMaximum", "< "), ("maximum", "≤ "))


class KeyType(NamedTuple):
    """The type of a key.

    Attributes:
        schema: JSON schema, with the description.
        default: Default of the schema; presets may have another value.
    """

    schema: Mapping[str, Any]
    default: Any

    @property
    def kind(self) -> str:
        """Type and range: ``int ≥ 1, ≤ 8192, multiple of 32``."""
        return _kind(self.schema)

    @property
    def range(self) -> str:
        """Range without the type, or the choices; empty if every value of the type is allowed."""
        if "enum" in self.schema or "type" not in self.schema:
            return _kind(self.schema)
        return _kind(self.schema).partition(" ")[2] if self.schema["type"] in ("integer", "number") else ""

    @property
    def name(self) -> str:
        """Name of the type alone: int, float, bool, text, list, mapping."""
        if "type" not in self.schema:
            return "name or number"
        if "enum" in self.schema:
            return "name"
        return {"array": "list", "object": "mapping", **_TYPES}[self.schema["type"]]


@cache
def key_types() -> Mapping[str, KeyType]:
    """Return the type of each key by dotted key, in the order of the schema."""
    document, config = Config.model_json_schema(), Config()
    types = {}
    for name, default in config.model_dump(mode="json").items():
        if not isinstance(default, dict):
            types[name] = KeyType(document["properties"][name], default)
            continue
        section = document["$defs"][type(getattr(config, name)).__name__]["properties"]
        types |= {f"{name}.{key}": KeyType(section[key], value) for key, value in default.items()}
    return types


def _kind(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema and "type" not in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return ", ".join(str(value) or "empty" for value in schema["enum"])
    if schema["type"] == "object":
        return f"mapping of names to {_kind(schema['additionalProperties'])}"
    if schema["type"] == "array":
        return f"list of {_kind(schema['items'])}"
    bounds = [f"{sign}{schema[bound]}" for bound, sign in _BOUNDS if bound in schema]
    if "multipleOf" in schema:
        bounds.append(f"multiple of {schema['multipleOf']}")
    return " ".join([_TYPES[schema["type"]], ", ".join(bounds)]).strip()
