"""The pipeline model-evaluation in this process: evaluates a bundle and a baseline on the same images."""

from __future__ import annotations

from dataclasses import dataclass

from kubeyolo.catalogue import MODEL_EVALUATION
from kubeyolo.config.load import ungated
from kubeyolo.data.dataset import Dataset
from kubeyolo.source import results_source
from kubeyolo.steps import facade
from kubeyolo.steps.call import StepCall
from kubeyolo.steps.checked_form import Form, check_form
from kubeyolo.steps.configure import evaluated_bundles
from kubeyolo.steps.outcome import StoredOutcome


@dataclass(frozen=True)
class EvaluatedModels:
    """The stored evaluations of a bundle and of its baseline, and the data set of both; None without a baseline."""

    dataset: Dataset
    bundle: StoredOutcome
    baseline: StoredOutcome | None = None


def evaluate_models(form: Form) -> EvaluatedModels:
    """Evaluate the bundle of a form, and its baseline, as the pipeline model-evaluation does; see docs/runs.md.

    Results are stored, and stored results of the same work are used. The gates of the bundles are ignored.

    Args:
        form: The form of the pipeline, filled in; its data may also be a stored data set.

    Raises:
        InputError: A setting or a URI is wrong, or bundle, data and runtime do not fit each other.
        WorkError: The store stopped answering.
    """
    checked = check_form(MODEL_EVALUATION, form)
    bundles, resolved = evaluated_bundles(checked)
    store = checked.at(checked.store)
    store.contact()
    calls = {
        name: StepCall(store=store, config=ungated(each.config), code=results_source())
        for name, each in resolved.items()
    }
    dataset = facade.given_dataset(calls["bundle"], checked.place("data"))
    found = {name: facade.evaluate(calls[name], bundles[name], dataset, checked.runtime) for name in bundles}
    return EvaluatedModels(dataset, found["bundle"], found.get("baseline"))
