"""The base class of the sections of a configuration, and what their keys have in common."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from kubeyolo.config.text import plain_scalar

DeviceTarget = Literal["CPU", "Ascend"]
"""Devices that MindSpore computes on; GPUs are not supported."""

JOB_DEVICE = "If it is not set, a step with a job on a cluster uses the device of its nodes."
"""End of the description of each ``device_target``."""

IN_FORM: dict[str, Any] = {"in_form": True}
"""Marks a setting that has a field of its own in the forms of the pipelines, under the name of its key."""

MOST_PIXELS, MOST_IMAGES, MOST_PROCESSES, MOST_EPOCHS = 8192, 65_536, 65_536, 1_000_000
MOST = 1_000_000_000
"""Upper bound of all other whole numbers: settings are sent as doubles, which are exact up to 2**53."""


class Section(BaseModel):
    """A section of the configuration: frozen, without unknown keys; a text that is a number becomes the number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _of_one_kind(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse numbers for booleans and booleans for numbers; read texts from forms by the rules for files."""
        return _plain_value(value, cls.model_fields[str(info.field_name)].annotation)


def _is_plain_list(annotation: Any) -> bool:
    return get_origin(annotation) is tuple and get_origin(get_args(annotation)[0]) is not tuple


def _plain_value(value: Any, annotation: Any) -> Any:
    """Return a value for a setting of this type; pydantic checks type and range later.

    Raises:
        ValueError: The value is a boolean and the type is a number, or the other way round.
    """
    if _is_plain_list(annotation) and isinstance(value, str | int | float) and not isinstance(value, bool):
        # Other programs write lists without brackets: 220,250.
        value = [each.strip() for each in value.split(",") if each.strip()] if isinstance(value, str) else [value]
    if _is_plain_list(annotation) and get_args(annotation)[0] is str and isinstance(value, list | tuple):
        # Names may be numbers, such as the classes 0 and 1.
        return [str(each) if isinstance(each, int) and not isinstance(each, bool) else each for each in value]
    if get_origin(annotation) is tuple and isinstance(value, list | tuple):
        return [_plain_value(each, get_args(annotation)[0]) for each in value]
    if get_origin(annotation) in (Union, UnionType):
        # A word, such as auto, or a number.
        words, number = get_args(annotation)
        text = value.strip() if isinstance(value, str) else value
        return text if text in get_args(words) else _plain_value(text, number)
    kind = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    if kind not in (bool, int, float):
        return value
    if isinstance(value, str):
        value = plain_scalar(value.strip())
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, int | float):
        raise ValueError("expected true or false" if kind is bool else "expected a number")
    # -0.0 becomes 0.0, so that equal settings are written the same.
    return value + 0.0 if isinstance(value, float) else value
