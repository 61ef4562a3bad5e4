"""Each extra of the package has what the step of its image imports, found by reading the imports."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.catalogue import (
    DETECTOR_RETRAINING,
    DETECTOR_TRAINING,
    IMAGES,
    MODEL_EVALUATION,
    PIPELINES,
    STEPS,
    Step,
)
from kubeyolo.data.sample import generate_sample_dataset
from tests.steps.fixed_detector import fixed_bundle, write_data
from tests.steps.test_publish import make_bundle

ROOT = Path(__file__).parents[1]

PROGRAMS = {
    "train": ("kubeyolo.training.worker", "kubeyolo.launch.launcher"),
    "evaluate": ("kubeyolo.launch.launcher",),
    "evaluate-onnx": ("kubeyolo.cli.app", "kubeyolo.cli.gate"),
    "export": ("kubeyolo.launch.launcher",),
    "quantize": ("kubeyolo.launch.launcher",),
    "launch": ("kubeyolo.launch.watch",),
}
"""What an image runs besides its steps."""

PACKAGES = {"cv2": "opencv-python-headless", "yaml": "pyyaml", "PIL": "pillow", "fontTools": "fonttools"}
IMPORTED = {"ml-dtypes": "ml_dtypes"}

OTHER_STEPS = {
    "kubeyolo.export.mindspore_export",
    "kubeyolo.launch.volcano",
    "kubeyolo.quantization",
    "kubeyolo.training.event_files",
    "mlflow",
    "onnx",
}
"""What the gate reaches through the façade of all steps."""

# Reached by reading alone: runtimes and measurements that the step does not call. OpenVINO is an extra of its own.
NEVER_CALLED = {
    "validate": {
        *("hotcoco", "pycocotools", "kubeyolo.launch.volcano", "mindspore", "onnxruntime", "openvino"),
        *("kubeyolo.export.onnx", "kubeyolo.export.onnx_nms"),
    },
    "evaluate": {"openvino"},
    "evaluate-onnx": {"kubeyolo.evaluation.network", "mindspore", "openvino"} | OTHER_STEPS,
    "export": {"openvino"},
    "train": {"onnxruntime", "openvino"},
    "quantize": {"kubeyolo.evaluation.network", "mindspore"},
    "launch": {"hotcoco", "kubeyolo.evaluation.predictor", "pycocotools"},
}


def imports_of(module: str) -> set[str]:
    """Return the modules that a module of the package imports anywhere in it, but for the type checker."""
    path = ROOT / Path(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in list(ast.walk(tree)):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if is_module(inner) else node.module)
    return found


def is_module(name: str) -> bool:
    path = ROOT / Path(*name.split("."))
    return name.startswith("kubeyolo") and (path.with_suffix(".py").is_file() or (path / "__init__.py").is_file())


def module_of(step: Step) -> str:
    """Return the module that does a step: the one that has its name."""
    line = f'STEP = "{step.name}"\n'
    (path,) = (path for path in (ROOT / "kubeyolo" / "steps").glob("*.py") if line in path.read_text(encoding="utf-8"))
    return f"kubeyolo.steps.{path.stem}"


def packages_of(extra: str) -> dict[str, str]:
    """Return the outer packages that the steps of an extra reach, each with the module that imports it."""
    skipped = NEVER_CALLED.get(extra, set())
    waiting = [module_of(step) for step in STEPS.values() if step.image == extra]
    waiting += PROGRAMS.get(extra, ())
    seen: set[str] = set()
    outer: dict[str, str] = {}
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        for name in imports_of(module):
            if any(name == one or name.startswith(f"{one}.") for one in skipped):
                continue
            top = name.split(".")[0]
            if top == "kubeyolo":
                waiting.append(name)
            elif top not in sys.stdlib_module_names:
                outer.setdefault(PACKAGES.get(top, top).replace("_", "-"), module)
    return outer


def requirements(extra: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + project["optional-dependencies"][extra]
    return {re.split(r"[<>=!\[ ]", line)[0] for line in lines}


@pytest.mark.parametrize("extra", IMAGES)
def test_an_extra_has_what_its_steps_import(extra: str) -> None:
    found = packages_of(extra)
    assert {name: found[name] for name in found.keys() - requirements(extra)} == {}


def test_an_image_for_ascend_has_what_cann_imports_besides() -> None:
    """CANN's package te imports them, and the environment of the image comes before the packages of its base."""
    of_cann = {"attrs", "cffi", "decorator", "protobuf", "psutil", "scipy", "sympy"}
    install = runpy.run_path(str(ROOT / "docker" / "install.py"))
    # The job of quantize trains in the image of train.
    images = {step.image for step in STEPS.values() if step.has_job and step.name != "quantize"}
    assert images == {"train", "evaluate", "export"}
    for image in images:
        extras = install["extras_of"](image, "ascend")
        lines = install["requirements"](ROOT / "pyproject.toml", *extras)
        names = {re.split(r"[<>=!\[ ]", line)[0] for line in lines}
        of_image = requirements("mlflow") if image == "train" else set()
        assert names == requirements(image) | of_cann | of_image and packages_of(image).keys() <= names
        assert install["extras_of"](image, "cpu") == ((image, "mlflow") if image == "train" else (image,))
    locked = (ROOT / "constraints.txt").read_text()
    assert {name for name in of_cann | {"mpmath"} if f"\n{name}==" not in locked} == set()


def test_the_walk_finds_what_is_known() -> None:
    assert all("kubernetes" in packages_of(extra) for extra in ("launch", "train", "evaluate", "export", "quantize"))
    # The launcher of a step is in its image.
    assert {"evaluate", "export", "quantize", "train"} >= {step.image for step in STEPS.values() if step.has_job}
    assert {"mindspore", "pycocotools", "onnxruntime"} <= packages_of("export").keys()
    assert not {"mindspore", "onnx"} & packages_of("launch").keys()


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_built_from_a_target_of_its_name_with_its_extra(image: str) -> None:
    build = runpy.run_path(str(ROOT / "docker" / "build.py"))
    assert image in build["IMAGES"]
    text = build["dockerfile_of"](image).read_text()
    assert re.search(rf"python3 install.py dependencies {image}( |$)", text, re.MULTILINE)
    assert f'org.opencontainers.image.title="kubeyolo-{image}"' in text


ABSENT = """
import importlib.abc, json, sys

ABSENT = set(json.loads(sys.argv[1]))

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}: it is not in this image", name=name)

sys.meta_path.insert(0, Absent())
"""
"""Begins a program that cannot import the packages that its first argument names."""

CONFIGURE = """
from kubeyolo.steps.component import validate_dataset
from kubeyolo.steps.configure import configure
runs = [configure(pipeline, form) for pipeline, form in json.loads(sys.argv[2])]
class Artifact:
    path, metadata = sys.argv[3], {}
validate_dataset(
    settings=runs[0].settings["validate_dataset"].struct(), validated_dataset=Artifact(), data_report=Artifact(),
    data_findings=Artifact(),
)
print(json.dumps({"names": [run.name for run in runs], "modules": sorted(sys.modules)}))
"""

GATE = """
from kubeyolo.cli.app import main
try:
    main(sys.argv[2:])
finally:
    print(json.dumps({"modules": sorted(sys.modules)}))
"""


def absent_from(image: str) -> set[str]:
    """Return the packages, as they are imported, that other images have and this image lacks."""
    everywhere = {name for extra in IMAGES for name in requirements(extra)}
    return {IMPORTED.get(name, name) for name in everywhere - requirements(image)}


def in_image(image: str, program: str, *arguments: str, folder: Path) -> tuple[int, dict[str, Any], str]:
    """Run a program that can import only what an image has; return its code, the JSON of its last line, its errors."""
    command = [sys.executable, "-c", ABSENT + program, json.dumps(sorted(absent_from(image))), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KUBEYOLO_CACHE": str(folder / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=300)
    assert done.stdout, done.stderr[-3000:]
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_configure_works_with_what_its_image_has(tmp_path: Path) -> None:
    """Each form, in a process that cannot import what only other images have."""
    data = generate_sample_dataset(tmp_path / "data", train=2, val=1, image_size=(64, 64))
    bundle, store = make_bundle(tmp_path), str(tmp_path / "store")
    (tmp_path / "pointer.json").write_text(json.dumps({"data": str(data)}))
    on_cluster = {"launcher": "volcano", "cluster": "cpu", "settings": "{train: {processes: 2, per_batch_size: 4}}"}
    forms = [
        (DETECTOR_TRAINING, {"data": str(data), "store": store, **on_cluster}),
        (DETECTOR_RETRAINING, {"pointer": str(tmp_path / "pointer.json"), "store": store}),
        (MODEL_EVALUATION, {"data": str(data), "store": store, "bundle": bundle, "runtime": "mindspore"}),
    ]
    assert {pipeline for pipeline, _ in forms} == {*PIPELINES} and STEPS["configure"].image == "validate"
    absent = absent_from("validate")
    imported = {"mindspore", "ml_dtypes", "onnx", "onnxruntime", "kubernetes", "tensorboardX"}
    assert absent == {*imported, "hotcoco", "openvino", "pycocotools"}
    code, found, errors = in_image("validate", CONFIGURE, json.dumps(forms), str(tmp_path / "file"), folder=tmp_path)
    assert code == 0, errors[-3000:]
    assert len(set(found["names"])) == 3
    assert not absent & {name.partition(".")[0] for name in found["modules"]}


def test_the_gate_works_with_what_the_image_for_onnx_has(tmp_path: Path) -> None:
    """The whole command: a folder is validated, and the int8 network of a bundle is evaluated."""
    data, bundle = write_data(tmp_path / "data"), fixed_bundle(tmp_path / "bundle", {"int8": 4})
    absent = absent_from("evaluate-onnx")
    assert absent == {"mindspore", "ml_dtypes", "onnx", "openvino", "kubernetes", "tensorboardX"}
    options = ("--bundle", bundle, "--data", str(data), "--runtime", "int8", "--report", "gate.html")
    # AP is 0.6, so the limit says that it was really measured.
    code, found, errors = in_image("evaluate-onnx", GATE, "gate", *options, "--min-ap", "0.59", folder=tmp_path)
    assert code == 0, errors[-3000:]
    assert not (absent | {"kfp", "kfp_server_api"}) & {name.partition(".")[0] for name in found["modules"]}
    assert "onnxruntime" in found["modules"] and "at least 0.59" in (tmp_path / "gate.html").read_text()
    code, _, errors = in_image("evaluate-onnx", GATE, "gate", *options, "--min-ap", "0.61", folder=tmp_path)
    assert (code, errors) == (1, "")
