from __future__ import annotations

from tests.training.conftest import small_dataset

__all__ = ["small_dataset"]
