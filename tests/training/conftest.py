from __future__ import annotations

import pytest

from kubeyolo.runtime import configure_mindspore


@pytest.fixture(scope="session")
def mindspore_ready() -> None:
    configure_mindspore("CPU", 1)
