"""Hints about a training that goes wrong: when they are shown, and that a good training gets none."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.storage.place import Place
from kubeyolo.training.checkpoints import newest_checkpoint
from kubeyolo.training.hints import Hints, class_hint, loss_hint, worse_hint
from kubeyolo.training.history import HistoryRow, TrainingHistory
from kubeyolo.training.loop import Hooks
from tests.training.test_loop import CountingEngine, loop_on

STEPS = 1000
Curve = Callable[[float], float]


def losses(curve: Curve, until: float = 1.0, every: int = 20) -> list[HistoryRow]:
    """Return rows with the loss at each share of the training."""
    steps = range(every, round(until * STEPS) + 1, every)
    return [HistoryRow(step=step, epoch=step // 50, loss=curve(step / STEPS)) for step in steps]


def validations(curve: Curve, until: float = 1.0, lost: tuple[str, ...] = (), every: int = 50) -> list[HistoryRow]:
    """Return rows with the AP at each share of the training; some classes have an AP of 0."""
    steps = range(every, round(until * STEPS) + 1, every)
    return [
        HistoryRow(
            kind="val",
            step=step,
            epoch=step // 50 - 1,
            ap=curve(step / STEPS),
            ap_by_class={name: 0.0 if name in lost else curve(step / STEPS) for name in ("cat", "dog", "rat")},
        )
        for step in steps
    ]


def falling(share: float) -> float:
    return 0.06 + 0.13 * math.exp(-3 * share) + 0.01 * math.sin(60 * share)


def rising(share: float) -> float:
    return 0.6 * (1 - math.exp(-4 * share)) + 0.02 * math.sin(90 * share)


def test_a_good_training_gets_no_hint_at_any_step() -> None:
    rows = sorted([*losses(falling), *validations(rising)], key=lambda row: row.step)
    hints = Hints(TrainConfig(), STEPS, {"cat": 9, "dog": 9, "rat": 9})
    assert all(hints.hints_of(rows[:count]) == {} for count in range(len(rows) + 1))


@pytest.mark.parametrize(
    ("train", "cause"),
    [
        (TrainConfig(lr=1e-5), r"the likeliest cause is train\.lr = 1e-05, which is small for sgd: .*train\.lr=0\.01$"),
        (
            TrainConfig(optimizer="adamw", lr=0.2),
            r"train\.lr = 0\.2, which is large for adamw: .*--set train\.lr=0\.001$",
        ),
        (TrainConfig(), r"the likeliest cause is boxes that do not fit their images: look at the sample images"),
    ],
)
def test_a_loss_that_does_not_fall_is_named_with_its_likeliest_cause(train: TrainConfig, cause: str) -> None:
    rows = losses(lambda share: 0.19 - 0.003 * share)
    early, late = [[row for row in rows if row.step < 200], [row for row in rows if row.step <= 200]]
    assert loss_hint(early, [], train, STEPS) == ""
    hint = loss_hint(late, [], train, STEPS)
    assert re.search(cause, hint), hint
    assert hint.startswith("the loss does not fall: 0.1899 at the start, 0.1895 after 200 of 1000 steps; ")


def test_the_loss_of_a_network_that_has_learned_may_stay() -> None:
    """A detector that is trained further starts with a small loss."""
    rows = losses(lambda share: 0.05)
    assert loss_hint(rows, validations(lambda share: 0.04), TrainConfig(), STEPS)
    assert loss_hint(rows, validations(lambda share: 0.05), TrainConfig(), STEPS) == ""
    assert loss_hint(losses(lambda share: 0.05, 0.09), [], TrainConfig(), 90) == ""  # too short to judge
    assert Hints(TrainConfig(), STEPS, {}).hints_of(rows).keys() == {"loss"}
    assert Hints(TrainConfig(), STEPS, {}, has_learned=True).hints_of(rows) == {}


def test_classes_that_are_never_found_are_named_late_in_training() -> None:
    boxes = {"cat": 900, "dog": 12, "rat": 700}
    assert class_hint(validations(rising, 0.45, ("dog",)), boxes, STEPS) == ""
    hint = class_hint(validations(rising, 0.5, ("dog",)), boxes, STEPS)
    assert "AP is 0 in the last 3 validations up to epoch[9] for 'dog' (training boxes: 12), with an AP of " in hint
    assert hint.endswith("too few boxes to learn from: add images of these classes")
    many = class_hint(validations(rising, 1.0, ("cat", "rat")), boxes, STEPS)
    assert "for 'cat' (training boxes: 900), 'rat' (training boxes: 700)" in many and "confusion matrix" in many
    # A network that has learned nothing at all is not a question of classes; two validations do not suffice.
    assert class_hint(validations(lambda share: 0.04, 1.0, ("dog",)), boxes, STEPS) == ""
    assert class_hint(validations(rising, 1.0, ("dog",))[-2:], boxes, STEPS) == ""
    rows = validations(rising, 1.0, ("dog",))
    found = rows[-2].model_copy(update={"ap_by_class": {"dog": 0.01}})
    assert class_hint([*rows[:-2], found, rows[-1]], boxes, STEPS) == ""
    # Rows of earlier versions have no AP by class.
    assert class_hint([row.model_copy(update={"ap_by_class": None}) for row in rows], boxes, STEPS) == ""


def test_an_ap_that_is_far_below_its_best_for_long_is_named_with_its_likeliest_cause() -> None:
    def peak(share: float) -> float:
        return 0.5 - 0.5 * abs(share - 0.4)

    rows = validations(peak)
    until = {row.epoch: worse_hint(losses(falling), rows[: row.epoch + 1], TrainConfig(), STEPS) for row in rows}
    assert [epoch for epoch, hint in until.items() if hint] == [14, 15, 16, 17, 18, 19]
    assert until[14].startswith(
        "AP has been far below its best value in the last 5 validations: 0.500 after epoch[7], 0.325 after epoch[14]"
    )
    assert "overfitting" in until[14] and "train.max_epoch=8" in until[14]
    risen = worse_hint(losses(lambda share: 0.1 + 0.1 * share), rows, TrainConfig(lr=0.03), STEPS)
    assert risen.endswith("train.lr = 0.03: train again into a different output with --set train.lr=0.01")
    # A small loss of AP, and a fall that ends, are no reason to warn.
    assert worse_hint(losses(falling), validations(lambda share: peak(min(share, 0.49))), TrainConfig(), STEPS) == ""
    assert worse_hint(losses(falling), [*rows, rows[7].model_copy(update={"step": 1001})], TrainConfig(), STEPS) == ""


def test_a_hint_is_shown_once_also_by_a_resumed_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubeyolo.training.hints.LEAST_STEPS", 20)

    def trained(folder: str, losses: dict[int, float]) -> tuple[list[str], list[str]]:
        shown: list[str] = []
        hints = Hints(TrainConfig(), 40, {}, shown.append)
        engine = CountingEngine(losses={step: 1.0 for step in range(41)} | losses)
        loop = loop_on(
            tmp_path / folder, engine, [], Hooks(hints=hints), total_steps=40, log_interval=2, checkpoint_interval=30
        )
        try:
            loop.run(newest_checkpoint(Place.of(tmp_path / folder).store, print))
        except Exception as error:
            assert "step 33" in str(error)
        return shown, hints.show_new(loop.journal.history)

    whole, at_end = trained("a", {})
    assert len(whole) == len(at_end) == 1
    assert whole[0].startswith("warning: the loss does not fall: 1 at the start, 1 after 20 of 40 steps; ")
    assert at_end[0].startswith("the loss does not fall: 1 at the start, 1 after 40 of 40 steps; ")
    first, _ = trained("b", {33: float("nan")})
    assert first == whole
    (tmp_path / "b" / "not-finite.json").unlink(missing_ok=True)
    again, resumed = trained("b", {})
    assert again == [] and resumed == at_end
    assert TrainingHistory.from_bytes((tmp_path / "b/history.jsonl").read_bytes()).rows[-1].step == 40
