"""Networks are tested operator by operator."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def operator_by_operator(pynative: None) -> None:
    """Use the fixture `pynative` for every test."""
