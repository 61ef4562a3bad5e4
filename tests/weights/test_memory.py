"""Peak memory of building and loading every model, each in a process of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kubeyolo.models.named_facts import model_facts, model_names
from kubeyolo.weights.names import layouts_of, to_layout
from kubeyolo.weights.network_parameters import network_parameters
from tests.alone import run_alone
from tests.weights.torch_writer import TorchFile, ordered

SMALL = 10_000_000
"""Parameters up to which `make ci` measures a model."""
BEGIN = """
import sys
from pathlib import Path
from kubeyolo.runtime import configure_mindspore
configure_mindspore()
import mindspore
from kubeyolo.bundle import WEIGHTS, open_bundle
from kubeyolo.evaluation.network import load_network
from kubeyolo.models.registry import build_model
from kubeyolo.storage.place import Place
from kubeyolo.weights.fit import load_named
from kubeyolo.weights.importing import import_weights
from kubeyolo.weights.layout_of_names import NameScheme, translate_arrays
from kubeyolo.weights.network_parameters import NetworkParameters
from kubeyolo.weights.weights_file import read_weights
from tests.alone import peak_memory
file, model, layout, bundle = sys.argv[1:]
before = peak_memory()
"""
IMPORT = "import_weights(Path(file), model, bundle)"
LOAD_FILE = """
network = build_model(model, 80)
about = NetworkParameters(network.facts, 80, {})
arrays = translate_arrays(read_weights(Path(file)).arrays, NameScheme(layout), about)
load_named(network, arrays, "weights")
"""
LOAD_BUNDLE = """
opened = open_bundle(Place.of(bundle))
network = load_network(opened.manifest, opened.path(WEIGHTS))
"""


def every_model() -> list[Any]:
    return [
        pytest.param(name, marks=[pytest.mark.large] if model_facts(name).parameters > SMALL else [])
        for name in model_names()
    ]


@pytest.mark.parametrize("model", every_model())
def test_peak_memory_is_at_most_two_and_a_half_times_the_parameters(tmp_path: Path, model: str) -> None:
    path, facts = tmp_path / "a.pt", model_facts(model)
    (layout,) = layouts_of(facts)
    write_checkpoint(path, model, layout)
    limit, bundle = 2.5 * 4 * facts.parameters + 50e6, tmp_path / "bundle"
    for work in (IMPORT, LOAD_FILE, LOAD_BUNDLE):
        code = f"{BEGIN}{work}\nprint(peak_memory() - before)"
        taken = int(run_alone(code, path, model, layout, bundle))
        print(f"{model}: {taken / 1e6:.0f} MB, limit {limit / 1e6:.0f}")
        assert taken <= limit, f"{work}: {taken / 1e6:.0f} MB above the import, limit {limit / 1e6:.0f}"
    # The largest take more than a gigabyte each.
    path.unlink()
    shutil.rmtree(bundle)


def write_checkpoint(path: Path, model: str, layout: str) -> None:
    """Write ones as a file of the program that the model is from."""
    file, facts = TorchFile(), model_facts(model)
    shapes = network_parameters(model).shapes
    tree = {to_layout(name, facts, layout): file.tensor(np.ones(shape, np.float32)) for name, shape in shapes.items()}
    file.write(path, ordered(tree))
