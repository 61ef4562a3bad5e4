"""What the result of a step was made from, kept in its record, so that an output is never taken for another result."""

from __future__ import annotations

from typing import Any

from kubeyolo.bundle import bundle_reference
from kubeyolo.config.schema import Config
from kubeyolo.data.dataset import open_dataset
from kubeyolo.errors import InputError
from kubeyolo.events import StepRecord
from kubeyolo.steps.outputs import GATES
from kubeyolo.steps.record import Finished, finished
from kubeyolo.steps.settings import read_sections
from kubeyolo.storage.reference import split_reference
from kubeyolo.storage.uri import open_store
from kubeyolo.training.extension import changed_keys, pair_option

_DIGITS = 12


def conditions_of(step: str, bundle: str, dataset: str, config: Config, **others: str) -> dict[str, Any]:
    """Return what the result of a step on a bundle depends on, by key.

    Args:
        step: Name of the step.
        bundle: URI or reference of the bundle.
        dataset: URI or reference of the stored data set.
        config: The configuration; what the step reads of it counts.
        **others: What else counts, such as ``runtime``.

    Raises:
        InputError: The bundle or the data set cannot be read.
    """
    values: dict[str, Any] = {
        "bundle": split_reference(bundle)[1] or split_reference(bundle_reference(bundle))[1],
        "dataset": split_reference(dataset)[1] or open_dataset(dataset).manifest.digest,
        **others,
    }
    for section, settings in read_sections(config, step).items():
        values |= {f"{section}.{key}": value for key, value in settings.items() if key not in GATES}
    return values


def finished_under(output: str, step: str, conditions: dict[str, Any]) -> Finished | None:
    """Return the record of a step whose result lies whole at its output, or None when it has to work.

    Raises:
        InputError: The result there was made from something else.
    """

    def is_same(record: StepRecord) -> bool:
        if not record.conditions:
            print(f"{step}: the version that made {output} did not keep its settings; they are not compared")
            return True
        changed = changed_keys(record.conditions, conditions)
        if changed:
            _refuse(open_store(output).uri, step, changed[0], record.conditions, conditions)
        return True

    return finished(output, step, is_same)


def _refuse(place: str, step: str, key: str, saved: dict[str, Any], now: dict[str, Any]) -> None:
    was, is_now = (_shown(key, values.get(key)) for values in (saved, now))
    option = _typed(key, saved[key]) if key in saved else ""
    back = f"set it back ({option}) to get that result, or " if option else ""
    raise InputError(
        f"{place}: holds the result of {step} with {key} = {was}, now it is {is_now}; "
        f"{back}choose another output with --output"
    )


def _typed(key: str, value: Any) -> str:
    """Return the option that gives a condition a value; empty for a digest, which is not typed."""
    if key == "runtime":
        return f"--runtime {value}"
    return pair_option(key, value) if "." in key else ""


def _shown(key: str, value: Any) -> str:
    return f"{str(value)[:_DIGITS]}…" if key in ("bundle", "dataset") else repr(value)
