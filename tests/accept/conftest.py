from __future__ import annotations

from tests.training.conftest import small_dataset, trainings

__all__ = ["small_dataset", "trainings"]
