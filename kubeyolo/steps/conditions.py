"""The conditions of a step's result: its inputs and settings, stored in its record to tell results apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubeyolo.bundle import Bundle
from kubeyolo.config.load import without_gates
from kubeyolo.config.schema import Config
from kubeyolo.data.dataset import Dataset
from kubeyolo.errors import InputError
from kubeyolo.events import StepRecord
from kubeyolo.steps.outcome import StoredOutcome, finished
from kubeyolo.steps.settings import read_sections
from kubeyolo.storage.place import Place
from kubeyolo.training.extension import changed_keys, pair_option

_DIGITS = 12


def conditions_of(step: str, bundle: Bundle, dataset: Dataset, config: Config, **others: str) -> dict[str, Any]:
    """Return what the result of a step on a bundle depends on, by key.

    Args:
        step: Name of the step.
        bundle: The bundle.
        dataset: The stored data set.
        config: The configuration; only the sections that the step reads are used.
        **others: Further conditions, such as ``runtime``.
    """
    return settings_conditions(step, config, {"bundle": bundle.digest, "dataset": dataset.digest, **others})


def settings_conditions(step: str, config: Config, inputs: Mapping[str, str]) -> dict[str, Any]:
    """Return what the result of a step on inputs, given by name and digest, depends on; see :func:`conditions_of`."""
    values: dict[str, Any] = dict(inputs)
    for section, settings in without_gates(read_sections(config, step)).items():
        values |= {f"{section}.{key}": value for key, value in settings.items()}
    return values


def finished_under(output: Place, step: str, conditions: dict[str, Any]) -> StoredOutcome | None:
    """Return the stored outcome if the output is complete, or None if the step must run.

    Raises:
        InputError: The output has a result from different inputs or settings.
    """

    def is_same(record: StepRecord) -> bool:
        if not record.conditions:
            print(f"{step}: the version that wrote {output} did not store its settings, so they are not compared")
            return True
        changed = changed_keys(record.conditions, conditions)
        if changed:
            _refuse(output, step, changed[0], record.conditions, conditions)
        return True

    return finished(output, step, is_same)


def _refuse(output: Place, step: str, key: str, saved: dict[str, Any], now: dict[str, Any]) -> None:
    was, is_now = (_shown(key, values.get(key)) for values in (saved, now))
    option = _typed(key, saved[key]) if key in saved else ""
    back = f"set it back ({option}) to get that result, or " if option else ""
    raise InputError(
        f"{output}: holds the result of {step} with {key} = {was}, now it is {is_now}; "
        f"{back}choose another output with --output"
    )


def _typed(key: str, value: Any) -> str:
    """Return the option that sets a condition to a value; empty for a digest, which users cannot set."""
    if key == "runtime":
        return f"--runtime {value}"
    return pair_option(key, value) if "." in key else ""


def _shown(key: str, value: Any) -> str:
    return f"{str(value)[:_DIGITS]}…" if key in ("bundle", "dataset", "detections") else repr(value)
