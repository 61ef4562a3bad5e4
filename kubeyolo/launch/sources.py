"""Sources of cluster settings: values by key, pairs of a command, and how one source goes over another."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from kubeyolo.config.text import read_text
from kubeyolo.errors import InputError, check_known, one_line, problem_of, split_pair

MERGED = ("annotations", "environment", "labels", "per_device")
"""Settings of which a source overrides single keys, not the whole mapping."""

_PRESET, _STEPS = "preset", "steps"
_STEP_DEPTH = 2
_SHOWN = 80


@dataclass(frozen=True)
class Known:
    """The names that sources may have.

    Attributes:
        fields: Names of settings.
        texts: Those whose values are texts, even if they look like numbers.
        steps: Names of steps that may have a job.
    """

    fields: Collection[str]
    texts: Collection[str]
    steps: Collection[str]


@dataclass(frozen=True)
class Source:
    """Settings for all steps, and settings by step."""

    common: Mapping[str, Any]
    steps: Mapping[str, Mapping[str, Any]]

    def over(self, other: Source) -> Source:
        """Return the settings of both sources; those of this source win."""
        steps = {step: merged(other.of(step), self.of(step)) for step in (*other.steps, *self.steps)}
        return Source(merged(other.common, self.common), steps)

    def of(self, step: str) -> Mapping[str, Any]:
        """Return the settings of one step."""
        return self.steps.get(step, {})


def merged(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of several sources, the later ones over the earlier ones."""
    result: dict[str, Any] = {}
    for source in sources:
        for key, value in source.items():
            before = result.get(key)
            if key in MERGED and isinstance(before, Mapping) and isinstance(value, Mapping):
                result[key] = {**before, **value}
            else:
                result[key] = value
    return result


def source_of(values: Mapping[str, Any], known: Known) -> Source:
    """Return values by key as a source; a key may have dots: ``steps.evaluate.job``, ``per_device.cpu``.

    Raises:
        InputError: A step or a key is unknown, or the settings of a step are not a mapping.
    """
    source = Source({}, {})
    for key, value in values.items():
        source = _one(key, value, known).over(source)
    return source


def pairs_of(sets: Sequence[str], known: Known) -> Source:
    """Return the pairs of a command as a source, the later ones over the earlier ones.

    Raises:
        InputError: As :func:`source_of`, or a pair without a key or with a value that cannot be read.
    """
    source = Source({}, {})
    for pair in sets:
        key, text = split_pair(pair, "--cluster-set", "queue=training")
        _, path = _step_and_path(key)
        # Quantities and names are texts, even if they look like numbers.
        is_text = path[0] in known.texts or (len(path) > 1 and path[0] in MERGED)
        value = text if is_text else read_text(text, f"--cluster-set {one_line(pair, _SHOWN)!r}")
        source = _one(key, value, known).over(source)
    return source


def _step_and_path(key: str) -> tuple[str, list[str]]:
    """Return the step of a dotted key, empty for all steps, and the names of a setting and of a key in it."""
    step = ""
    if key.startswith(f"{_STEPS}."):
        parts = key.split(".", _STEP_DEPTH)
        step, key = parts[1], parts[_STEP_DEPTH] if len(parts) > _STEP_DEPTH else ""
    name, dot, rest = key.partition(".")
    return step, [name, rest] if dot and name in MERGED else [key]


def _one(key: str, value: Any, known: Known) -> Source:
    """Return the source of one key."""
    if key == _STEPS:
        return _by_step(value, known)
    step, path = _step_and_path(key)
    if key.startswith(f"{_STEPS}.") and path == [""]:
        return _by_step({step: value}, known)
    name, *rest = path
    setting = {name: {rest[0]: value} if rest else value}
    if key.startswith(f"{_STEPS}."):
        return _by_step({step: setting}, known)
    check_known("cluster setting", name, (*known.fields, _PRESET, _STEPS))
    return Source(setting, {})


def _by_step(steps: Any, known: Known) -> Source:
    if steps is None:
        return Source({}, {})
    if not isinstance(steps, Mapping):
        raise InputError(
            f"cluster settings: steps = {one_line(steps, _SHOWN)}: expected settings by the name of a step"
        )
    for step, own in steps.items():
        check_known("step with a job", step, known.steps, "cluster settings: steps")
        if not isinstance(own, Mapping):
            raise InputError(
                f"cluster settings: steps.{step} = {one_line(own, _SHOWN)}: expected settings, such as {{job: true}}"
            )
    divided = {step: _paths(own) for step, own in steps.items()}
    for step, own in divided.items():
        for key in own:
            check_known("cluster setting", key, known.fields, f"steps.{step}")
    return Source({}, divided)


def _paths(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings whose dotted keys are replaced by mappings."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        name, dot, rest = str(key).partition(".")
        result = merged(result, {name: {rest: value}} if dot and name in MERGED else {str(key): value})
    return result


_REASONS: Mapping[str, str] = {
    "string_type": "expected a text; write the value in quotes",
    "tuple_type": "expected a list, such as [VALUE]",
    "dict_type": "expected keys with values, such as {KEY: VALUE}",
    "extra_forbidden": "there is no such key",
    "model_type": "expected keys with values, such as {cpu: 2, memory: 4Gi}",
}
"""What to do about kinds of values, by pydantic's names for the errors."""


def refusal(error: ValidationError, prefix: str, meanings: Mapping[str, str]) -> InputError:
    """Return the error of settings that are not allowed: the setting, its value, what is expected.

    Args:
        error: Pydantic's error.
        prefix: The step that the setting is for.
        meanings: Descriptions by setting.
    """
    wrong = problem_of(error)
    name = wrong.key.partition(".")[0]
    key = one_line(wrong.key.removesuffix(".[key]"), _SHOWN)
    shown = repr(wrong.value)
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
    reason = _REASONS.get(wrong.kind, wrong.reason)
    if wrong.value is None:
        reason = "there is no value; write one, or leave the key out"
    return InputError(f"cluster settings: {prefix}{key} = {shown}: {reason} ({meanings[name]})")
