"""The note about a small data set whose classes may look alike: when it applies."""

from __future__ import annotations

import pytest

from kubeyolo.config.load import load_config
from kubeyolo.models.named_facts import model_facts, model_names
from kubeyolo.training.small_sets import small_set_note


def note(model: str = "yolov5n-r7", images: int = 296, classes: int = 6, *sets: str) -> str:
    return small_set_note(model_facts(model), load_config(model, sets=sets), images, classes)


def test_the_note_names_the_key_and_what_was_measured() -> None:
    text = note()
    assert text.startswith("296 training images of 6 classes are a small set, and the class loss is multiplied by 6/80")
    assert "train.cls_gain = 0.5: on a set of six look-alike classes with 296 images, 8 times this gain" in text
    assert "AP50 from 0.64 to 0.76 and lowered AP from 0.51 to 0.41. kubeyolo does not change it" in text


def test_the_note_applies_to_every_model_with_a_loss_that_is_scaled_by_the_classes() -> None:
    assert {model for model in model_names() if not note(model)} == {
        model for model in model_names() if model_facts(model).loss in ("yolov3", "yolov4")
    }


@pytest.mark.parametrize(
    "given",
    [
        (1999, 1),
        (2000, 6),
        (0, 6),
        (296, 0),
        (296, 21),
        (296, 6, "train.cls_gain=4"),
        (296, 6, "pretrain.data=images"),
        (296, 6, "train.weights=bundle"),
    ],
)
def test_the_note_does_not_apply_to_other_trainings(given: tuple[int | str, ...]) -> None:
    assert note("yolov5n-r7", *given) == ""  # type: ignore[arg-type]


def test_a_backbone_pretrained_on_crops_makes_no_difference() -> None:
    assert note("yolov5n-r7", 296, 6, "pretrain.enabled=false") == note() != ""
    assert note("yolov5n-r7", 296, 6, "pretrain.enabled=false", "pretrain.data=images") == note()
