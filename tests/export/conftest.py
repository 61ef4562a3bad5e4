from __future__ import annotations

import os

import pytest

from tests.export.tiny_detector import ExportedDetector, exported_detector
from tests.training.pretraining import Trainings


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> ExportedDetector:
    base = tmp_path_factory.getbasetemp()
    return exported_detector(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)


@pytest.fixture(scope="session")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    return Trainings(tmp_path_factory)
