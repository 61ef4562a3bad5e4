"""Two real training processes, started by msrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kubeyolo.config.schema import Config
from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.errors import WorkError
from kubeyolo.launch import local
from kubeyolo.training.spec import TrainingSpec

# Trains a small network without batch normalization: with it the processes would not see the same statistics. A second
# training has a scaled loss, and at one step the gradients of one image, of the last process, are infinite.
WORKER = """
import os, sys, json
from pathlib import Path
import numpy as np
from kubeyolo.runtime import configure_mindspore
from kubeyolo.training.distribution import distribution_from_environment, is_scheduler, join

configure_mindspore("CPU", 1)
distribution = distribution_from_environment()
if distribution.world > 1:
    join(distribution)
if is_scheduler():
    sys.exit(0)

from mindspore import Tensor, nn, ops
from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.training.step import GradientSum
from kubeyolo.training.engine import Engine
from kubeyolo.training.optimizers import group_parameters
from kubeyolo.training.schedules import build_schedule


class Loss(nn.Cell):
    def construct(self, output, labels):
        loss = ops.square(output.mean((1, 2, 3)) - labels).mean()
        return loss * output.shape[0], loss.reshape(1)


def trained(scaling):
    network = nn.SequentialCell(nn.Conv2d(3, 4, 3, has_bias=True), nn.Conv2d(4, 2, 1))
    rng = np.random.default_rng(0)
    for parameter in network.trainable_params():
        parameter.set_data(Tensor(rng.standard_normal(parameter.shape).astype(np.float32)))
    config = TrainConfig(lr=0.05, max_epoch=2, warmup_epochs=0, grad_scaler=scaling)
    shapes = [parameter.shape for parameter in group_parameters(network).all]
    reduce = GradientSum(shapes) if distribution.world > 1 else None
    engine = Engine(network, Loss(), config, build_schedule(config, 3), reduce)
    rng = np.random.default_rng(1)
    for step in range(5):
        images, labels = rng.integers(0, 256, (4, 3, 8, 8), np.uint8), rng.random(4).astype(np.float32)
        if scaling != "none" and step == 2:
            labels[3] = np.inf
        size = 4 // distribution.world
        mine = slice(distribution.rank * size, (distribution.rank + 1) * size)
        engine.train(images[mine], labels[mine])
    return engine.capture({})


plain, scaled = trained("none"), trained("dynamic")
arrays = {**plain.weights, **{f"scaled.{name}": array for name, array in scaled.weights.items()}}
arrays |= {f"scaler.{name}": np.float32(value) for name, value in scaled.scaler.items()}
out = Path(json.loads(Path(sys.argv[1]).read_text())["output"])
np.savez(out / f"{distribution.world}-{distribution.rank}.npz", **arrays)
Path(os.environ["KUBEYOLO_OUTCOME"], f"rank-{distribution.rank}.json").write_text(
    json.dumps({"rank": distribution.rank, "exit_code": 0, "message": ""}))
"""


def spec(output: str, processes: int) -> TrainingSpec:
    return TrainingSpec(dataset="none", output=output, config=Config(train=TrainConfig(processes=processes)))


def test_two_processes_follow_the_gradient_of_the_global_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_batches.py").write_text(WORKER)
    paths = [str(tmp_path), str(Path(local.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setattr("kubeyolo.training.spec.WORKER_MODULE", "half_batches")
    monkeypatch.setattr(local, "WORKER_MODULES", {"half_batches"})
    for processes in (1, 2):
        local.launch_work(spec(str(tmp_path), processes).work(), print)
    whole, first, second = (dict(np.load(tmp_path / f"{name}.npz")) for name in ("1-0", "2-0", "2-1"))
    assert whole.keys() == first.keys() and whole
    assert (whole["scaler.skipped"], whole["scaler.scale"]) == (1, 32768)
    for name, value in whole.items():
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        np.testing.assert_allclose(first[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_rank_that_fails_ends_all_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing.py").write_text(
        "import os, sys, time\n"
        "if os.environ['MS_ROLE'] == 'MS_SCHED': sys.exit(0)\n"
        "if os.environ['RANK_ID'] == '1': sys.exit('rank one broke')\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(local.__file__).parents[2])]))
    monkeypatch.setattr("kubeyolo.training.spec.WORKER_MODULE", "failing")
    monkeypatch.setattr(local, "WORKER_MODULES", {"failing"})
    with pytest.raises(WorkError, match="rank one broke"):
        local.launch_work(spec(str(tmp_path / "out"), 2).work(), print)


WATCHING = """
import json, os, sys, time
from pathlib import Path
leave = Path(os.environ["KUBEYOLO_OUTCOME"])
if os.environ["MS_ROLE"] == "MS_SCHED":
    while len(list(leave.glob("rank-*.json"))) < 2:
        time.sleep(0.05)
    sys.exit(0)
rank, end = int(os.environ["RANK_ID"]), time.monotonic() + 30
while time.monotonic() < end:
    if Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[0] == "T":
        outcome = {"rank": rank, "exit_code": 0, "message": ""}
        Path(os.environ["KUBEYOLO_OUTCOME"], f"rank-{rank}.json").write_text(json.dumps(outcome))
        print(f"rank {rank}: msrun sleeps", flush=True)
        sys.exit(0)
    time.sleep(0.05)
sys.exit("msrun never slept")
"""


def test_msrun_sleeps_while_its_processes_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "watching.py").write_text(WATCHING)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(local.__file__).parents[2])]))
    monkeypatch.setattr("kubeyolo.training.spec.WORKER_MODULE", "watching")
    monkeypatch.setattr(local, "WORKER_MODULES", {"watching"})
    lines: list[str] = []
    local.launch_work(spec(str(tmp_path / "out"), 2).work(), lines.append)
    assert lines == ["rank 0: msrun sleeps"]


SLEEPING = """
import os, sys, time
from pathlib import Path
from kubeyolo.processes import die_with_parent
die_with_parent()
Path(os.environ["SLEEPING_UP"], f"{os.environ['MS_ROLE']}-{os.getpid()}").touch()
leave = Path(os.environ["SLEEPING_UP"]).with_name("leave")
while os.environ["MS_ROLE"] == "MS_WORKER" or not leave.exists():
    time.sleep(0.2)
"""

LAUNCH = (
    "from kubeyolo.launch import local; from kubeyolo.training import spec\n"
    "from kubeyolo.config.schema import Config, TrainConfig\n"
    "spec.WORKER_MODULE = 'sleeping'\n"
    "local.WORKER_MODULES = {'sleeping'}\n"
    "config = Config(train=TrainConfig(processes=2))\n"
    "local.launch_work(spec.TrainingSpec(dataset='d', output='o', config=config).work())"
)


def of_launch(marker: str) -> list[str]:
    """Return the commands of living processes that were started with this value in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (path / "environ").read_bytes():
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [command for command in found if command]


def wait_until(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


@pytest.mark.parametrize("end", ["worker killed", "launcher told to stop", "launcher killed"])
def test_no_process_of_a_launch_remains(tmp_path: Path, end: str) -> None:
    (tmp_path / "sleeping.py").write_text(SLEEPING)
    up = tmp_path / "up"
    up.mkdir()
    paths = os.pathsep.join([str(tmp_path), str(Path(local.__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": paths, "SLEEPING_UP": str(up)}
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCH], env=environment, stderr=subprocess.DEVNULL)
    wait_until(lambda: len(list(up.iterdir())) == 3)
    assert len(of_launch(str(up))) >= 4
    if end == "worker killed":
        worker = next(up.glob("MS_WORKER-*"))
        os.kill(int(worker.name.split("-")[1]), signal.SIGKILL)
        # MindSpore's scheduler ends when its workers are gone, and msrun waits for it.
        (tmp_path / "leave").touch()
    else:
        launcher.send_signal(signal.SIGTERM if end == "launcher told to stop" else signal.SIGKILL)
    launcher.wait(90)
    wait_until(lambda: of_launch(str(up)) == [], 20)
