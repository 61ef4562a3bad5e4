"""Fixture that runs a test in both modes of MindSpore."""

from __future__ import annotations

from collections.abc import Iterator

import mindspore as ms
import pytest


@pytest.fixture(params=["graph", "pynative"])
def mode(request: pytest.FixtureRequest) -> Iterator[str]:
    # Strict: in the default level a construct that cannot be compiled is run in Python, slowly and unseen.
    chosen = ms.GRAPH_MODE if request.param == "graph" else ms.PYNATIVE_MODE
    ms.set_context(mode=chosen, jit_syntax_level=ms.STRICT)
    yield request.param
    ms.set_context(mode=ms.PYNATIVE_MODE, jit_syntax_level=ms.LAX)
