"""A detector from scratch, of few steps: it begins to find boxes."""

from __future__ import annotations

import orjson

from tests.training.pretraining import Trainings, last_validation


def test_a_detector_from_scratch_begins_to_find_boxes(trainings: Trainings) -> None:
    output = trainings.detector("scratch")
    rows = [orjson.loads(line) for line in (output / "history.jsonl").read_bytes().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert losses[-1] < 0.9 * losses[0]
    # After so few steps AP50 depends on the rounding of the processor: .063 and .017 were seen.
    assert last_validation(output)["ap50"] > 0.008
