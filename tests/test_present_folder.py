"""The folder a command is started in never decides which code runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kubeyolo.config.schema import Config
from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.errors import InputError
from kubeyolo.launch.local import launch_work
from kubeyolo.storage.place import Place
from kubeyolo.training.spec import TrainingSpec

ROOT = Path(__file__).parents[1]
RAISE = "raise SystemExit('code of the present folder')\n"
COMMAND = [sys.executable, "-P", "-c", "from kubeyolo.cli.app import main; main()"]
BY_MODULE = [sys.executable, "-m", "kubeyolo.cli.app"]

# As in a notebook or a script: the present folder is the first that is looked in, once everything is imported.
LOADER = """
import os, sys
from kubeyolo.config.training_schema import AugmentConfig, DataConfig
from kubeyolo.data.loader import Loader
from tests.data.rendered_split import RenderedSplit
import random, socket, numpy
sys.path[:0] = {first}
with Loader(RenderedSplit(), DataConfig(workers=1), AugmentConfig(), 96, 4, 0) as loader:
    print(next(loader.epoch(0)).images.shape)
"""


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """Return a folder with modules that end whatever imports them."""
    folder = tmp_path / "trap"
    (folder / "kubeyolo").mkdir(parents=True)
    (folder / "kubeyolo" / "__init__.py").write_text(RAISE)
    for name in ("random.py", "socket.py", "mindspore.py", "numpy.py"):
        (folder / name).write_text(RAISE)
    return folder


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    environment |= {"PYTHONPATH": str(ROOT), "KUBEYOLO_CACHE": str(folder / "cache")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_a_command_runs_the_installed_code(trap: Path) -> None:
    generate_sample_dataset(trap / "shapes", train=2, val=1, image_size=(64, 64))
    assert run([*COMMAND, "--version"], trap).stdout.startswith("kubeyolo ")
    done = run([*COMMAND, "validate", "shapes", "--store", "store"], trap)
    assert done.returncode == 0, done.stderr


def test_a_module_of_the_library_imports_nothing_from_the_present_folder(trap: Path) -> None:
    # Of the package itself Python has decided before any of it runs.
    (trap / "kubeyolo" / "__init__.py").unlink()
    (trap / "kubeyolo").rmdir()
    done = run([*BY_MODULE, "models", "list"], trap)
    assert done.returncode == 0 and "yolov5n" in done.stdout, done.stderr


@pytest.mark.parametrize("processes", [1, 2])
def test_a_training_runs_the_installed_code(trap: Path, monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    monkeypatch.chdir(trap)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    config = Config(train=TrainConfig(processes=processes))
    spec = TrainingSpec(dataset=str(trap / "absent"), output=str(trap / "output"), config=config)
    with pytest.raises(InputError, match=f"^{Place.of(trap / 'absent')}: "):
        launch_work(spec.work(), lambda line: None)


@pytest.mark.parametrize("first", ['[""]', "[os.getcwd()]", "[]"])
def test_a_worker_of_the_loader_runs_the_installed_code(trap: Path, first: str) -> None:
    done = run([sys.executable, "-P", "-c", LOADER.replace("{first}", first)], trap)
    assert done.stdout == "(4, 3, 96, 96)\n", done.stderr
