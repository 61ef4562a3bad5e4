"""Any values that the schema of the settings allows, for tests of how settings travel."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from kubeyolo.config.load import known_keys
from kubeyolo.config.schema import Config

KEYS = tuple(key for key in known_keys() if key != "model")
_UNBOUND = 1e9


def schema_of(key: str) -> dict[str, Any]:
    """Return the JSON schema of a key."""
    section, _, name = key.partition(".")
    owner: Any = Config.model_fields[section].annotation if name else Config
    found: dict[str, Any] = owner.model_json_schema()["properties"][name or section]
    return found


def _values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "anyOf" in schema:
        return st.one_of([_values(each) for each in schema["anyOf"]])
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "pattern" in schema:
        # Height x width; the side of a square is written as a number.
        return st.sampled_from(["384x640", "640x384", "32x8192"])
    kind = schema["type"]
    if kind == "boolean":
        return st.booleans()
    if kind == "integer":
        step = schema.get("multipleOf", 1)
        return st.integers(-(-schema["minimum"] // step), schema["maximum"] // step).map(lambda number: number * step)
    if kind == "number":
        low, high = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
        return st.floats(
            schema.get("minimum", -_UNBOUND if low is None else low),
            schema.get("maximum", _UNBOUND if high is None else high),
            exclude_min=low is not None,
            exclude_max=high is not None,
        ).map(lambda number: number + 0.0)  # zero has one sign
    if kind == "array":
        return st.lists(_values(schema["items"]), min_size=schema.get("minItems", 0), max_size=4)
    # Half of a surrogate pair is no character.
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


_OF_OWN_FORM: dict[str, st.SearchStrategy[Any]] = {
    "data.levels": st.lists(st.floats(0, 1e6), min_size=2, max_size=2, unique=True).map(sorted) | st.just([]),
    "data.findings": st.dictionaries(
        st.sampled_from(["box_outside", "crowd_many", "name_near"]), st.sampled_from(["mend", "warn", "refuse"])
    ),
    # A list for each level: one list of pairs is read as one level.
    "train.anchors": st.lists(st.lists(st.floats(0.5, 8192), min_size=6, max_size=6), min_size=2, max_size=4)
    | st.just([]),
    "train.freeze": st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12), max_size=4),
    "train.val_split": st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
        lambda name: name != "train"
    ),
    # Each once, ascending.
    "train.sizes": st.sets(st.integers(2, 256).map(lambda number: 32 * number), max_size=4).map(sorted),
    # Each once, in the order of the schema.
    "export.formats": st.sets(st.sampled_from(["mindir", "onnx", "air"]), min_size=1).map(
        lambda names: [name for name in ("mindir", "onnx", "air") if name in names]
    ),
}


def any_value(key: str) -> st.SearchStrategy[Any]:
    """Return the values that a key takes, in the types of JSON."""
    return _OF_OWN_FORM[key] if key in _OF_OWN_FORM else _values(schema_of(key))


any_settings: st.SearchStrategy[dict[str, Any]] = st.lists(st.sampled_from(KEYS), unique=True, max_size=12).flatmap(
    lambda keys: st.fixed_dictionaries({key: any_value(key) for key in keys})
)
"""Values by dotted key."""
