"""Each image as the step that it is for: with a read-only root, without capabilities, as an ordinary user."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

NAMES = ("validate", "train", "evaluate", "evaluate-onnx", "export", "quantize", "launch")
WITH_MINDSPORE = {"train", "evaluate", "export"}
LARGEST = {"validate": 600e6, "train": 1600e6}
"""Bytes that an image may take, unpacked."""

USER = 10001
CLOSED = ("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--network", "none")

# What an image is like from within.
PROBE = """
import importlib.util, json, os, pathlib, shutil

def writable(folder):
    try:
        (folder / "probe").write_text("x")
    except OSError:
        return False
    return True

folders = [path for path in pathlib.Path("/").iterdir() if path.is_dir() and path.name not in ("proc", "sys", "dev")]
folders += [pathlib.Path("/var/tmp"), pathlib.Path("/opt/kubeyolo"), pathlib.Path(os.path.expanduser("~"))]
places = ("/etc/pip.conf", "/root/.config/pip/pip.conf", "/root/.pip/pip.conf")
configurations = [pathlib.Path(place) for place in places]
configurations = [path for path in configurations if os.access(path, os.R_OK) and path.stat().st_size]
caches = [pathlib.Path(place) for place in ("/root/.cache", "/var/cache/apt/archives", "/var/lib/apt/lists")]
print(json.dumps({
    "user": os.getuid(),
    "writable": sorted({str(path.resolve()) for path in folders if writable(path)}),
    "compilers": [name for name in ("cc", "gcc", "g++", "clang", "make") if shutil.which(name)],
    "installers": [path.name for path in pathlib.Path("/opt/kubeyolo/bin").glob("pip*")],
    "mindspore": importlib.util.find_spec("mindspore") is not None,
    "torch": importlib.util.find_spec("torch") is not None,
    "configurations": [str(path) for path in configurations],
    "packages": [str(path) for cache in caches if os.access(cache, os.R_OK) for path in cache.rglob("*.*")],
    "secrets": [name for name in os.environ if any(word in name for word in ("KEY", "SECRET", "TOKEN", "PASSWORD"))],
    "capabilities": [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")],
}))
"""


def run(engine: str, reference: str, *command: str, mount: Path | None = None, text: str | None = None) -> str:
    """Run a command in a container of an image and return what it prints; only /tmp and the mount are written."""
    mounts = ("--volume", f"{mount}:/store") if mount else ()
    # Podman alone would make /run and /var/tmp writable again.
    closed = (*CLOSED, "--read-only-tmpfs=false") if engine == "podman" else CLOSED
    options = ("--rm", "--interactive", *closed, "--tmpfs", "/tmp", *mounts)
    done = subprocess.run(
        [engine, "run", *options, reference, *command], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_an_image_has_what_its_step_needs_and_nothing_else(engine: str, references: dict[str, str], name: str) -> None:
    found = json.loads(run(engine, references[name], "python3", "-", text=PROBE))
    assert found["user"] == USER and found["capabilities"] == ["0000000000000000"]
    assert found["writable"] == ["/tmp"]
    assert found["compilers"] == [] and found["installers"] == [] and not found["torch"]
    assert found["mindspore"] is (name in WITH_MINDSPORE)
    assert (found["configurations"], found["packages"], found["secrets"]) == ([], [], [])


@pytest.mark.parametrize("name", NAMES)
def test_an_image_says_what_it_is(engine: str, references: dict[str, str], name: str) -> None:
    inspected = subprocess.run(
        [engine, "image", "inspect", references[name]], capture_output=True, text=True, check=True
    )
    (facts,) = json.loads(inspected.stdout)
    labels = facts["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == f"kubeyolo-{name}"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert len(labels["org.opencontainers.image.revision"].removesuffix("-dirty")) == 40
    assert facts["Config"]["User"] == f"{USER}:{USER}"
    assert facts["Size"] < LARGEST.get(name, 1600e6)


def test_the_steps_of_a_run_work_in_their_images(engine: str, references: dict[str, str], tmp_path: Path) -> None:
    """From a data set to a published bundle, each step in the image that the pipeline names."""
    # The container's user is another one than that of these files.
    tmp_path.chmod(0o777)

    def step(image: str, *command: str) -> dict[str, Any]:
        places = ("--store", "/store", "--json")
        outputs: dict[str, Any] = json.loads(
            run(engine, references[image], "kubeyolo", *command, *places, mount=tmp_path)
        )
        return dict(outputs["outputs"])

    run(
        engine,
        references["validate"],
        "kubeyolo",
        "sample",
        "/store/shapes",
        "--train",
        "8",
        "--val",
        "4",
        mount=tmp_path,
    )
    dataset = step("validate", "validate", "/store/shapes")["dataset"]
    settings = {"image_size": 64, "per_batch_size": 4, "max_epoch": 1, "warmup_epochs": 0}
    sets = [word for key, value in settings.items() for word in ("--set", f"train.{key}={value}")]
    trained = step("train", "train", dataset, *sets)["bundle"]
    assert "record" not in step("evaluate", "evaluate", trained, dataset)
    exported = step("export", "export", trained, dataset, "--set", "export.parity_images=2")["bundle"]
    step("evaluate-onnx", "evaluate", exported, dataset, "--runtime", "onnx")
    few = ("--set", "quantize.calibration_images=2", "--set", "quantize.max_drop=100")
    quantized = step("quantize", "quantize", exported, dataset, *few)["bundle"]
    published = step("launch", "publish", quantized, "--version", "1.0.0")["bundle"]
    assert published == "file:///store/models/yolov5n-r7/1.0.0"
    names = {path.name for path in (tmp_path / "models" / "yolov5n-r7" / "1.0.0").iterdir()}
    assert {"bundle.json", "weights.safetensors", "model.onnx", "model-int8.onnx", "MODEL_CARD.md"} <= names
