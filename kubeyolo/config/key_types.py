"""What each key of the configuration accepts, in words for tables, for the help of commands and for errors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from kubeyolo.config.schema import Config

_TYPES = {"integer": "int", "number": "float", "boolean": "bool", "string": "text"}
_BOUNDS = (("exclusiveMinimum", "> "), ("minimum", "≥ "), ("exclusiveMaximum", "< "), ("maximum", "≤ "))
_TYPES_IN_ERRORS = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"}
_BOUNDS_IN_ERRORS = (
    ("exclusiveMinimum", "> "),
    ("minimum", ">= "),
    ("exclusiveMaximum", "< "),
    ("maximum", "<= "),
    ("multipleOf", "a multiple of "),
)
# Errors use ASCII, which every terminal shows.


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
    def has_texts(self) -> bool:
        """Whether the value is a text or a list of texts, and every text is allowed."""
        schema = self.schema.get("items", {}) if self.schema.get("type") == "array" else self.schema
        return schema.get("type") == "string" and "enum" not in schema and "const" not in schema

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


def expected(key: str) -> str:
    """Return what a dotted key accepts, for an error: type and range, and its description."""
    if key not in key_types():
        return "not a section"
    schema = key_types()[key].schema
    words = schema.get("written") or _expected_kind(schema)
    description = schema.get("description", "")
    return f"expected {words}" + (f" ({description.rstrip('.')})" if description else "")


def _expected_kind(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_expected_kind(each) for each in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(str(value) or "empty" for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    if schema["type"] == "object":
        return f"a mapping of names to {_expected_kind(schema['additionalProperties'])}"
    if schema["type"] == "array":
        items = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"a list, each {_expected_kind(items)}"
    bounds = [f"{sign}{schema[bound]}" for bound, sign in _BOUNDS_IN_ERRORS if bound in schema]
    return " ".join([_TYPES_IN_ERRORS[schema["type"]], " and ".join(bounds)]).strip()


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
