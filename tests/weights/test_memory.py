"""Peak memory of building and loading a model, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kubeyolo.models.registry import model_facts
from kubeyolo.weights.names import to_layout
from kubeyolo.weights.network_parameters import network_parameters
from tests.weights.torch_writer import TorchFile, ordered

ROOT = Path(__file__).resolve().parents[2]
MEASURE = """
import re, sys
from pathlib import Path
from kubeyolo.runtime import configure_mindspore
configure_mindspore()
import mindspore
from kubeyolo.models.registry import build_model
from kubeyolo.weights import importing
from kubeyolo.weights.arrays import load_named
# Not getrusage: its peak begins with that of the process that started this one.
def peak(): return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
{work}
print(before, peak())
"""
IMPORT = "importing.import_weights(Path(sys.argv[1]), sys.argv[2], sys.argv[3])"
LOAD = """
from kubeyolo.weights.layout_of_names import NameScheme, translate_arrays
from kubeyolo.weights.network_parameters import NetworkParameters
from kubeyolo.weights.weights_file import read_weights
network = build_model(sys.argv[2], 80)
about = NetworkParameters(network.facts, 80, {})
arrays = translate_arrays(read_weights(Path(sys.argv[1])).arrays, NameScheme("yolov5"), about)
load_named(network, arrays, "weights")
"""


@pytest.mark.parametrize("model", ["yolov5n-r7", "yolov5s-r7", pytest.param("yolov5x-r7", marks=pytest.mark.large)])
def test_peak_memory_is_at_most_two_and_a_half_times_the_parameters(tmp_path: Path, model: str) -> None:
    import numpy as np

    file = TorchFile()
    shapes, facts = network_parameters(model).shapes, model_facts(model)
    tree = ordered(
        {to_layout(name, facts, "yolov5"): file.tensor(np.ones(shape, np.float32)) for name, shape in shapes.items()}
    )
    path = file.write(tmp_path / "a.pt", tree)
    del file, tree
    for work in (IMPORT, LOAD):
        run = subprocess.run(
            [sys.executable, "-c", MEASURE.replace("{work}", work), path, model, tmp_path / "bundle"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        before, peak = map(int, run.stdout.split()[-2:])
        limit = 2.5 * 4 * facts.parameters + 50e6
        print(f"{model}: {(peak - before) / 1e6:.0f} MB, limit {limit / 1e6:.0f}")
        assert peak - before <= limit, (
            f"{work}: {(peak - before) / 1e6:.0f} MB above the import, limit {limit / 1e6:.0f}"
        )
