"""Losses are tested operator by operator, and by the fixture `mode` as a compiled graph too."""

from __future__ import annotations

import mindspore as ms
import pytest


@pytest.fixture(autouse=True)
def operator_by_operator(pynative: None) -> None:
    """Use the fixture `pynative` for every test."""


@pytest.fixture(params=["graph", "pynative"])
def mode(request: pytest.FixtureRequest, pynative: None) -> str:
    """Run a test in both modes of MindSpore."""
    # Strict: in the default level a construct that cannot be compiled is run in Python, slowly and unseen.
    chosen = ms.GRAPH_MODE if request.param == "graph" else ms.PYNATIVE_MODE
    ms.set_context(mode=chosen, jit_syntax_level=ms.STRICT)
    return str(request.param)
