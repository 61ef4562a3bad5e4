"""A detector that starts from a pretrained backbone, after the few epochs of the detector from scratch."""

from __future__ import annotations

from tests.training.pretraining import Trainings, last_validation


def test_a_pretrained_detector_is_ahead_of_one_from_scratch(trainings: Trainings) -> None:
    found = {name: last_validation(trainings.detector(name)) for name in ("pretrained", "scratch")}
    assert found["pretrained"]["ap50"] > found["scratch"]["ap50"] + 0.1
