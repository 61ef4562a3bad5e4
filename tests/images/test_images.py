"""Each image as the step that it is for: with a read-only root, without capabilities, as an ordinary user."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.bundle import MINDIR, MODEL_CARD, ONNX, ONNX_INT8, WEIGHTS, open_bundle
from kubeyolo.catalogue import IMAGES, STEPS
from kubeyolo.storage.place import Place

WITH_MINDSPORE = {"train", "evaluate", "export"}
LARGEST = {"validate": 600e6, "train": 1600e6}
"""Bytes that an image may take, unpacked."""

USER = 10001

# What the images for Ascend have from their base; CANN is large, and may bring compilers.
OF_ASCEND = ("attr", "cffi", "decorator", "google.protobuf", "psutil", "scipy", "sympy", "te")
VARIABLES = ("ASCEND_HOME_PATH", "ASCEND_OPP_PATH", "LD_LIBRARY_PATH", "PYTHONPATH")
CLOSED = ("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--network", "none")

# What an image is like from within.
PROBE = (
    f"""
OF_ASCEND, VARIABLES = {OF_ASCEND!r}, {VARIABLES!r}
"""
    """
import importlib.util, json, os, pathlib, shutil

def writable(folder):
    try:
        (folder / "probe").write_text("x")
    except OSError:
        return False
    return True

def is_importable(name):
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True

def has_plugin():
    found = importlib.util.find_spec("mindspore")
    return found is not None and (pathlib.Path(found.origin).parent / "lib" / "plugin" / "ascend").is_dir()

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
    "of_ascend": [name for name in OF_ASCEND if is_importable(name)],
    "variables": [name for name in VARIABLES if os.environ.get(name)],
    "plugin": has_plugin(),
    "configurations": [str(path) for path in configurations],
    "packages": [str(path) for cache in caches if os.access(cache, os.R_OK) for path in cache.rglob("*.*")],
    "secrets": [name for name in os.environ if any(word in name for word in ("KEY", "SECRET", "TOKEN", "PASSWORD"))],
    "capabilities": [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")],
}))
"""
)


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


def facts_of(engine: str, reference: str) -> dict[str, Any]:
    inspected = subprocess.run([engine, "image", "inspect", reference], capture_output=True, text=True, check=True)
    (facts,) = json.loads(inspected.stdout)
    return dict(facts)


def device_of(engine: str, reference: str) -> str:
    """Return the device that an image is built for."""
    return str(facts_of(engine, reference)["Config"]["Labels"].get("io.kubeyolo.device", "cpu"))


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_has_what_its_step_needs_and_nothing_else(engine: str, references: dict[str, str], name: str) -> None:
    found = json.loads(run(engine, references[name], "python3", "-", text=PROBE))
    assert found["user"] == USER and found["capabilities"] == ["0000000000000000"]
    assert found["writable"] == ["/tmp"]
    assert found["installers"] == [] and not found["torch"]
    if device_of(engine, references[name]) == "ascend":
        assert (found["of_ascend"], found["variables"], found["plugin"]) == ([*OF_ASCEND], [*VARIABLES], True)
    else:
        assert found["compilers"] == [] and "te" not in found["of_ascend"] and not found["plugin"]
    assert found["mindspore"] is (name in WITH_MINDSPORE)
    assert (found["configurations"], found["packages"], found["secrets"]) == ([], [], [])


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_says_what_it_is(engine: str, references: dict[str, str], name: str) -> None:
    facts = facts_of(engine, references[name])
    labels = facts["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == f"kubeyolo-{name}"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert len(labels["org.opencontainers.image.revision"].removesuffix("-dirty")) == 40
    assert facts["Config"]["User"] == f"{USER}:{USER}"
    if device_of(engine, references[name]) == "cpu":
        assert facts["Size"] < LARGEST.get(name, 1600e6)


# A step as a pod calls it: its component's function, with artifacts in files.
STEP = """
import json, sys
from kubeyolo.catalogue import STEPS
from kubeyolo.steps import component

class Artifact:
    def __init__(self, name):
        self.path, self.metadata = f"/tmp/artifacts/{name}", {}
    def log_metric(self, *given): pass
    def log_confusion_matrix(self, *given): pass

step, function, given = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
artifacts = {each.name: Artifact(each.name) for each in STEPS[step].artifacts}
print("RESULT " + json.dumps(getattr(component, function)(**given, **artifacts)))
"""
STORE = "/store"
SETTINGS = {
    "train": {"warmup_epochs": 0, "val_interval": 0},
    "pretrain": {"image_size": 32, "max_steps": 2},
    "export": {"parity_images": 2},
    "quantize": {"calibration_images": 2, "max_drop": 100},
}
KNOBS = {"image_size": "64", "per_batch_size": "4", "max_epoch": "1"}


def test_the_steps_of_a_run_work_in_their_images(engine: str, references: dict[str, str], tmp_path: Path) -> None:
    """From a form to a published bundle that is the current model, each step in the image that the catalogue names."""
    # The container's user is another one than that of these files.
    tmp_path.chmod(0o777)
    called: set[str] = set()

    def call(step: str, function: str = "", **given: Any) -> list[Any]:
        called.add(step)
        command = ("python3", "-", step, function or step, json.dumps(given))
        text = run(engine, references[STEPS[step].image], *command, mount=tmp_path, text=STEP)
        return list(json.loads(text.rpartition("RESULT ")[2]))

    def kubeyolo(image: str, *words: str) -> str:
        return run(engine, references[image], "kubeyolo", *words, mount=tmp_path)

    data = f"{STORE}/shapes"
    kubeyolo("validate", "sample", data, "--train", "8", "--val", "4")
    form = {"data": data, "store": STORE, "settings": json.dumps(SETTINGS), **KNOBS, "version": "1.0.0"}
    facts, *structs, _ = call("configure", "configure_training", **form)
    assert facts["data"] == data and facts["fingerprint"]
    validation, pretraining, training, evaluation, export, quantization, publication = structs
    dataset, _ = call("validate_dataset", settings=validation)
    backbone, _ = call("pretrain_backbone", settings=pretraining, dataset=dataset)
    trained, trained_record = call("train", settings=training, dataset=dataset, backbone=backbone)
    (evaluated,) = call("evaluate", settings=evaluation, bundle=trained, dataset=dataset)
    exported, _ = call("export_model", settings=export, bundle=trained, dataset=dataset)
    quantized, _ = call("quantize", settings=quantization, bundle=exported, dataset=dataset)
    records = {"evaluation": evaluated, "training": trained_record}
    published, _ = call("publish", settings=publication, bundle=quantized, **records)
    reference = Place.of(published)
    uri, digest = reference.uri, reference.digest
    assert uri == f"file://{STORE}/models/yolov5n-r7/1.0.0"
    opened = open_bundle(Place.of(tmp_path / "models" / "yolov5n-r7" / "1.0.0"))
    assert opened.digest == digest
    assert {WEIGHTS, ONNX, MINDIR, ONNX_INT8, MODEL_CARD} <= opened.manifest.files.keys()

    # What a retraining has besides: the published bundle is the current model, and the new one is as good.
    latest = f"{STORE}/models/yolov5n-r7/latest.json"
    kubeyolo("launch", "publish", published, "--version", "1.0.0", "--store", STORE, "--latest", latest)
    (tmp_path / "pointer.json").write_text(json.dumps({"data": "shapes"}))
    retraining = {name: value for name, value in form.items() if name not in ("data", "version")}
    again = SETTINGS | {"retrain": {"force": True}}
    retraining |= {"pointer": f"{STORE}/pointer.json", "settings": json.dumps(again)}
    _, _, measuring, *_, promotion, found, _ = call("configure", "configure_retraining", **retraining)
    assert found == data and measuring["current"] == published
    (current,) = call("evaluate_current", settings=measuring, dataset=dataset)
    promoted, _ = call("promote", settings=promotion, bundle=quantized, current=current, dataset=dataset, **records)
    pointer = json.loads((tmp_path / "models" / "yolov5n-r7" / "latest.json").read_text())
    assert pointer["bundle"] == Place.of(promoted).uri != uri
    assert called == set(STEPS)

    # By hand, too, ONNX bundles are evaluated without MindSpore.
    text = kubeyolo("evaluate-onnx", "evaluate", published, dataset, "--runtime", "int8", "--store", STORE, "--json")
    assert "AP" in json.loads(text)["metrics"]
    options = ("--data", data, "--runtime", "int8", "--store", STORE, "--min-ap", "0", "--json")
    text = kubeyolo("evaluate-onnx", "gate", "--bundle", latest, "--baseline", published, *options)
    judged = json.loads(text)
    assert judged["passed"] and judged["dataset"] == dataset
