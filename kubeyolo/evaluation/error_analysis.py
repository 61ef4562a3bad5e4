"""The whole error analysis of an evaluation, and the documents that are stored next to its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from kubeyolo.arrays import Float64Array
from kubeyolo.evaluation.error_kinds import ErrorCosts, ErrorKinds, error_costs, error_kinds
from kubeyolo.evaluation.image_outcomes import ImageOutcomes, image_outcomes
from kubeyolo.evaluation.matching import Matches
from kubeyolo.evaluation.operating_points import OperatingPoints
from kubeyolo.evaluation.reliability import Reliability, reliability
from kubeyolo.evaluation.slices import SliceFamily, slice_families
from kubeyolo.evaluation.suspects import Suspect, find_suspects, suspects_document

ANALYSIS_NAME = "analysis.json"
IMAGES_NAME = "images.json"
SUSPECTS_NAME = "suspects.json"


@dataclass(frozen=True, eq=False)
class ErrorAnalysis:
    """The errors of an evaluation, their costs, and the images and boxes that have them."""

    classes: Sequence[str]
    matches: Matches
    points: OperatingPoints
    errors: ErrorKinds
    costs: ErrorCosts
    outcomes: ImageOutcomes
    slices: list[SliceFamily]
    reliability: Reliability
    suspects: list[Suspect]

    def documents(self, category_keys: Sequence[int | str]) -> dict[str, bytes]:
        """Return the documents by name: analysis.json, images.json (a row for each image), suspects.json (COCO).

        Args:
            category_keys: Id of each class in the annotations.
        """
        analysis = {
            "classes": self.classes,
            "error_kinds": self.costs,
            "operating_points": self.points.document(self.classes),
            "reliability": self.reliability,
            "slices": self.slices,
        }
        suspects = suspects_document(self.suspects, self.matches, self.classes, category_keys)
        contents: dict[str, Any] = {
            ANALYSIS_NAME: analysis,
            IMAGES_NAME: self.outcomes.document(self.matches),
            SUSPECTS_NAME: suspects,
        }
        return {name: orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY) for name, content in contents.items()}


def analyse_errors(
    matches: Matches, points: OperatingPoints, classes: Sequence[str], brightness: Float64Array | None = None
) -> ErrorAnalysis:
    """Analyse the errors of matched detections.

    Args:
        matches: Detections and boxes.
        points: Their best thresholds.
        classes: Name of each class.
        brightness: Mean grey value of each image (I,), NaN if unknown; None if it was not measured.
    """
    outcomes = image_outcomes(matches, points.by_class())
    errors = error_kinds(matches)
    return ErrorAnalysis(
        classes=classes,
        matches=matches,
        points=points,
        errors=errors,
        costs=error_costs(matches, errors, outcomes.confident),
        outcomes=outcomes,
        slices=slice_families(matches, outcomes.confident, brightness),
        reliability=reliability(matches),
        suspects=find_suspects(matches, errors, outcomes),
    )
