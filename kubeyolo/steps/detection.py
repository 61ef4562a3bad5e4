"""A bundle's network run over a split of a data set: COCO numbers, and detections for the report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from kubeyolo.config.schema import EvaluateConfig
from kubeyolo.errors import InputError, suggest
from kubeyolo.progress import OnProgress
from kubeyolo.steps.samples import evaluation_samples, spread

if TYPE_CHECKING:
    from kubeyolo.bundle import Bundle
    from kubeyolo.data.dataset import Dataset, Split
    from kubeyolo.evaluation.coco_eval import Detection
    from kubeyolo.evaluation.results import EvaluationResult
    from kubeyolo.report.samples import SampleImage

Runtime = Literal["mindspore", "onnx", "int8", "mindir"]
RUNTIMES: tuple[Runtime, ...] = ("mindspore", "onnx", "int8", "mindir")


@dataclass(frozen=True)
class SplitDetections:
    """The numbers of a split and some of its images, ground truth beside detections."""

    result: EvaluationResult
    samples: list[tuple[SampleImage, SampleImage]]
