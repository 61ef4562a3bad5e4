"""Stores an evaluation, and compares its AP with the limit of the run or command that needs the evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kubeyolo.config.schema import EvaluateConfig
from kubeyolo.errors import InputError
from kubeyolo.evaluation.limits import Verdict
from kubeyolo.evaluation.sharing import WHOLE, Share
from kubeyolo.report.page import with_verdict
from kubeyolo.steps import evaluate as evaluate_step
from kubeyolo.steps.outcome import StepOutcome, StoredOutcome, store_outcome, store_report
from kubeyolo.storage.place import Place


def store_judged(
    stored: StoredOutcome | None,
    evaluate: Callable[[], StepOutcome],
    output: Place,
    settings: EvaluateConfig,
    share: Share = WHOLE,
) -> StoredOutcome:
    """Store an evaluation if it is not stored yet, and compare AP with ``evaluate.min_ap``.

    The record holds no verdict, since all gates share it. The page shows the verdict of the last gate.

    Args:
        stored: The stored evaluation; None if there is none yet.
        evaluate: Computes the evaluation; called only if it is not stored.
        output: The folder of the evaluation.
        settings: ``min_ap`` is the lower limit of AP, 0 for no limit; ``judge`` is how AP is compared with it.
        share: The share of this process if several processes share the work.

    Raises:
        WorkError: AP is below the limit; everything is stored before the error is raised.
    """
    if stored is None:
        outcome = evaluate()
        verdict = evaluate_step.judge(outcome.metrics, settings.min_ap, settings.judge)
        stored = store_outcome(replace(outcome, html=with_verdict(outcome.html, verdict)), output)
        if share.world > 1:
            share.clear()
    else:
        verdict = evaluate_step.judge(stored.record.metrics, settings.min_ap, settings.judge)
        _show_verdict(stored, verdict)
    verdict.enforce(str(stored.record.metrics.get("title", evaluate_step.STEP)))
    return stored


def _show_verdict(stored: StoredOutcome, verdict: Verdict) -> None:
    """Write a verdict into the stored page of an evaluation, unless the page shows it already."""
    page = stored.report().decode()
    judged = with_verdict(page, verdict)
    if judged == page:
        return
    try:
        store_report(judged, stored.output)
    except InputError as error:  # The store is read-only.
        print(f"{stored.record.step}: the report still shows the gate of an earlier evaluation: {error}", flush=True)
