"""The table of all configuration keys in docs/configuration.md."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from kubeyolo.config.schema import Config

_TYPES = {"integer": "int", "number": "float", "boolean": "bool", "string": "text"}
_BOUNDS = (("exclusiveMinimum", "> "), ("minimum", "≥ "), ("exclusiveMaximum", "< "), ("maximum", "≤ "))


def reference_table() -> str:
    """Return a Markdown table of every key: type and range, default, meaning."""
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, schema, default in _keys():
        lines.append(f"| `{key}` | {_type(schema)} | `{json.dumps(default)}` | {schema['description']} |")
    return "\n".join(lines) + "\n"


def _keys() -> Iterator[tuple[str, Mapping[str, Any], Any]]:
    """Yield each dotted key with its JSON schema and its default."""
    document = Config.model_json_schema()
    for name, default in Config().model_dump(mode="json").items():
        if not isinstance(default, dict):
            yield name, document["properties"][name], default
            continue
        section = document["$defs"][type(getattr(Config(), name)).__name__]["properties"]
        for key, value in default.items():
            yield f"{name}.{key}", section[key], value


def _type(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(str(value) for value in schema["enum"])
    if schema["type"] == "object":
        return f"{_type(schema['additionalProperties'])}, by name"
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    bounds = [f"{sign}{schema[bound]}" for bound, sign in _BOUNDS if bound in schema]
    if "multipleOf" in schema:
        bounds.append(f"multiple of {schema['multipleOf']}")
    return " ".join([_TYPES[schema["type"]], ", ".join(bounds)]).strip()
