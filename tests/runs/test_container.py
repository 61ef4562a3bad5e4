"""Runs whose steps are containers: how they are started, and what a run makes of how they end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.errors import InputError, WorkError
from kubeyolo.processes import CONTAINER_VARIABLES
from kubeyolo.runs.container import RUN_LABEL, ContainerRunner
from kubeyolo.runs.local import LocalRun, RunOutcome, run_local
from kubeyolo.storage.base import Listing
from kubeyolo.storage.place import Place
from tests.runs.conftest import Watched
from tests.runs.container_engine import Container, ContainerEngine

ROOT = Path(__file__).parents[2]
STEPS = CompiledPipeline.named().tasks


class ContainerRuns:
    """Runs of the real graph whose steps do nothing, in containers of the double."""

    def __init__(self, folder: Path, fake: Any, bucket: str) -> None:
        self.runs = folder / "runs"
        self.data = folder / "data"
        self.data.mkdir()
        self.store = f"minio://{bucket}/team"
        names = fake.pipeline.image_names
        self.pipeline = fake.pipeline.bind_images({name: f"localhost/{name}:1" for name in names})
        image = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'runs' / 'fake'}",
            "PYTHONUNBUFFERED": "1",
            "HOME": str(folder),
        }
        self.engine = ContainerEngine(folder / "engine.sock", [f"localhost/{name}:1" for name in names], image)
        self.image = image

    def described(self, store: str = "", sources: tuple[str, ...] = ()) -> LocalRun:
        """Return a run of the fake steps; ``sources`` are read besides the data."""
        store = store or self.store
        return LocalRun(
            name="contained",
            model="yolov5n-r7",
            store=store,
            form={"data": str(self.data), "store": store},
            pipeline=self.pipeline,
            sources=(str(self.data), *sources),
        )

    def run(self, run: LocalRun | None = None) -> tuple[RunOutcome, Any]:
        watched = Watched()
        given = run or self.described()
        return run_local(given, self.runs, watched, ContainerRunner(given)), watched

    def let(self, step: str, end: str) -> None:
        self.image |= {"FAKE_STEP": step, "FAKE_END": end}


@pytest.fixture
def contained(
    tmp_path: Path, fake_runs: Any, minio_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ContainerRuns]:
    runs = ContainerRuns(tmp_path, fake_runs, minio_bucket)
    monkeypatch.setenv("DOCKER_HOST", runs.engine.host)
    yield runs
    runs.engine.stop()


def test_a_run_in_containers_ends_as_one_in_processes_does(contained: ContainerRuns) -> None:
    outcome, watched = contained.run()
    assert json.loads((contained.runs / "contained" / "summary.json").read_text()) == outcome.summary
    assert re.fullmatch(rf"{contained.store}/fake/publish-[0-9a-f]{{8}}/bundle", outcome.summary["bundle"])
    # Cut into pieces by the engine, the lines are whole again.
    assert watched.said[:3] == [
        "started configure",
        "line configure: configure says hello",
        "finished configure",
    ]
    assert [line for line in watched.said if line.startswith("line")] == [
        f"line {step}: {step} says hello" for step in _order(watched.said)
    ]
    _, watched = contained.run()  # nothing has changed
    assert sorted(line for line in watched.said if line.startswith("cached")) == sorted(
        f"cached {step}" for step in STEPS if step != "configure"
    )


def _order(said: list[str]) -> list[str]:
    return [line.split()[1] for line in said if line.startswith("started")]


def one_container(contained: ContainerRuns) -> Container:
    """Return the only container of a run that ends with its first step."""
    contained.let("configure", "work")
    with pytest.raises(WorkError):
        contained.run()
    (container,) = contained.engine.containers
    return container


def test_a_container_may_do_no_more_than_it_must(contained: ContainerRuns) -> None:
    spec, folder = one_container(contained).spec, contained.runs / "contained"
    host = spec["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["NetworkMode"] == "host"  # the store is on the loopback address
    assert spec["Labels"] == {RUN_LABEL: "contained"}
    mounts = {mount["Target"]: mount for mount in host["Mounts"]}
    assert mounts["/tmp"]["Source"] == str(folder / "tmp")
    assert mounts[str(contained.data)]["ReadOnly"] is True
    assert len(mounts) == 2
    assert host["Binds"][0] == f"{folder / 'kfp'}:{folder / 'kfp'}:rw"
    assert not (folder / "tmp").exists()


def test_containers_see_every_folder_that_is_read_from(contained: ContainerRuns, tmp_path: Path) -> None:
    run = contained.described(sources=(str(tmp_path / "crops"), "minio://bucket/images", ""))
    contained.let("configure", "work")
    with pytest.raises(WorkError, match="configure: the work failed"):
        contained.run(run)
    (container,) = contained.engine.containers
    mounts = {mount["Target"]: mount["ReadOnly"] for mount in container.spec["HostConfig"]["Mounts"]}
    assert mounts == {"/tmp": False, str(contained.data): True, str(tmp_path / "crops"): True}


def test_containers_run_the_installed_code_without_telemetry(contained: ContainerRuns) -> None:
    assert one_container(contained).environment.items() >= CONTAINER_VARIABLES.items()


def test_credentials_are_in_the_environment_of_the_containers_and_nowhere_else(contained: ContainerRuns) -> None:
    container, secret = one_container(contained), os.environ["MINIO_SECRET_KEY"]
    assert container.environment["MINIO_SECRET_KEY"] == secret
    assert secret not in json.dumps({key: value for key, value in container.spec.items() if key != "Env"})
    files = [path for path in contained.runs.rglob("*") if path.is_file()]
    assert {"run.log", "index.html"} <= {path.name for path in files}
    assert not [path for path in files if secret.encode() in path.read_bytes()]


def test_users_own_what_their_containers_write(contained: ContainerRuns) -> None:
    user, me = one_container(contained).spec.get("User"), os.getuid()
    owner = (contained.runs / "contained" / "kfp").stat().st_uid
    # root lets the user of the image write into the folder; others are that user themselves.
    assert (user, owner) == ((None, 10001) if me == 0 else (f"{me}:{os.getgid()}", me))


def test_root_in_a_container_of_a_rootless_engine_is_the_user(contained: ContainerRuns) -> None:
    contained.engine.rootless = True
    assert one_container(contained).spec["User"] == "0:0"


@pytest.mark.parametrize(
    ("end", "forgets", "error", "message"),
    [
        ("input", True, InputError, "^train: the input is bad$"),
        ("work", True, WorkError, "^train: the work failed$"),
        ("work", False, WorkError, "^train: the work failed$"),
        ("kill", False, WorkError, "^train: ended without a report; it printed last: Killed"),
    ],
)
def test_a_failed_container_fails_the_run(
    contained: ContainerRuns, end: str, forgets: bool, error: type[Exception], message: str
) -> None:
    contained.engine.forgets = forgets
    contained.let("train", end)
    with pytest.raises(error, match=message):
        contained.run()
    assert len(contained.engine.containers) == len(["configure", "validate_dataset", "pretrain_backbone", "train"])
    assert not (contained.runs / "contained" / "summary.json").exists()


def test_a_container_that_died_is_no_success_now_or_in_the_next_run(contained: ContainerRuns) -> None:
    contained.let("train", "kill")
    with pytest.raises(WorkError, match="^train: ended without a report; it printed last: Killed"):
        contained.run()
    contained.let("", "")
    outcome, watched = contained.run()
    assert outcome.summary["model"] == "yolov5n-r7"
    assert "cached pretrain_backbone" in watched.said and "started train" in watched.said


def test_the_last_step_too_must_leave_its_results(contained: ContainerRuns) -> None:
    contained.let("publish", "kill")
    with pytest.raises(WorkError, match="^publish: "):
        contained.run()


def test_a_container_that_never_speaks_is_named_by_its_step(contained: ContainerRuns) -> None:
    contained.image["PYTHONPATH"] = "/nowhere"
    with pytest.raises(WorkError, match="^configure: its results are missing"):
        contained.run()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_its_container_first(contained: ContainerRuns, number: int) -> None:
    contained.let("train", "sleep")
    threading.Thread(target=_interrupt_when, args=(contained, number), daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        contained.run()
    assert contained.engine.containers[-1].ended_as == ["SIGTERM"]
    assert contained.engine.running() == []


def _interrupt_when(contained: ContainerRuns, number: int) -> None:
    _wait_for(lambda: any(re.fullmatch("fake/train-.*/report.html", one.key) for one in _stored(contained)))
    os.kill(os.getpid(), number)


def _stored(contained: ContainerRuns) -> Listing:
    return Place.of(contained.store).store.list()


def _wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_container_that_a_killed_run_has_left_is_removed(contained: ContainerRuns) -> None:
    from docker import DockerClient

    client = DockerClient(contained.engine.host)
    image = contained.engine.images[0]
    left = client.containers.run(image, ["sleep", "300"], detach=True, labels={RUN_LABEL: "contained"})
    other = client.containers.run(image, ["sleep", "300"], detach=True, labels={RUN_LABEL: "other"})
    contained.run()
    assert [one.name for one in contained.engine.running()] == [other.id]
    assert left.id == contained.engine.containers[0].name
    client.close()


def test_an_image_that_is_nowhere_is_refused_before_any_step(contained: ContainerRuns) -> None:
    contained.engine.images.remove("localhost/kubeyolo-train:1")
    with pytest.raises(InputError, match=r"^image localhost/kubeyolo-train:1: not on .*; build the images with"):
        contained.run()
    assert contained.engine.containers == []


def test_a_store_in_a_folder_is_refused(contained: ContainerRuns, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="containers do not share folders; give --store minio://"):
        ContainerRunner(contained.described(str(tmp_path)))


def test_an_engine_that_does_not_answer_is_refused(contained: ContainerRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/engine.sock")
    with pytest.raises(InputError, match="^container engine unix:///nowhere/engine.sock: does not answer"):
        contained.run()


def test_the_command_says_what_it_misses(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kubeyolo.cli.app", "run", "--sample", "--runner", "docker"]
    environment = {**os.environ, "KUBEYOLO_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "build/images.yaml" in done.stderr
