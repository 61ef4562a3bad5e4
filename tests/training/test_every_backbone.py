"""Every backbone as a classifier: it learns, and the detector takes over what it has learned."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.models.named_facts import model_facts, model_names
from kubeyolo.training.schedules import Schedule, cosine_factor
from tests.alone import run_alone

QUICK = ("yolov5n-r7", "yolov4-tiny")
CLASSES = 3
CODE = """
import sys
from kubeyolo.runtime import configure_mindspore
configure_mindspore()
from tests.training.test_every_backbone import check_backbone
check_backbone(sys.argv[1])
print("done")
"""


def every_backbone() -> list[Any]:
    """Return a model for each backbone; `make ci` takes the small ones."""
    alike = ("yolov3-quant",)  # yolov3 with another activation
    return [
        pytest.param(name, marks=[] if name in QUICK else [pytest.mark.large])
        for name in model_names()
        if name not in alike
    ]


@pytest.mark.usefixtures("mindspore_ready")
@pytest.mark.parametrize("name", every_backbone())
def test_a_backbone_learns_and_its_detector_takes_it_over(name: str) -> None:
    if name in QUICK:
        check_backbone(name)
    else:
        run_alone(CODE, name)


def check_backbone(name: str) -> None:
    from kubeyolo.models.registry import build_model
    from kubeyolo.training.classifier import ClassificationLoss, Classifier
    from kubeyolo.training.engine import Engine, load_parameters

    config, steps = TrainConfig(optimizer="adamw", lr=0.001, momentum=0.9, weight_decay=0.0), 6
    schedule = Schedule(
        steps_per_epoch=1,
        lr=config.lr,
        factor=functools.partial(cosine_factor, epochs=steps, final=0.1),
        warmup=0,
        momentum=config.momentum,
        warmup_momentum=config.momentum,
        lag=0,
    )
    engine = Engine(Classifier(name, CLASSES, 0), ClassificationLoss(CLASSES), config, schedule, average=False)
    size = max(32, model_facts(name).strides[-1])
    images = np.random.default_rng(0).integers(0, 256, (6, 3, size, size), np.uint8)
    labels = np.arange(6, dtype=np.int32) % CLASSES
    losses = [float(engine.train(images, labels).asnumpy()[0]) for _ in range(steps)]
    print(name, losses)
    assert losses[-1] < 0.9 * losses[0]

    weights = {key: array for key, array in engine.capture({}).weights.items() if key.startswith("backbone.")}
    detector = build_model(name, 2)
    own = {one.name: one for one in detector.get_parameters() if one.name.startswith("backbone.")}
    load_parameters(own, weights, "weights")
    for key, parameter in own.items():
        np.testing.assert_array_equal(parameter.asnumpy(), weights[key])
