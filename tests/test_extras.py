"""Each extra of the package has what the step of its image imports, found by reading the imports."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

STEPS = {
    "validate": ("validate",),
    "train": ("pretrain", "train", "worker", "launcher"),
    "evaluate": ("evaluate", "in_use"),
    "export": ("export",),
    "quantize": ("quantize",),
    "launch": ("pointer", "promote", "publish", "launcher"),
}
PROGRAMS = {"worker": "kubeyolo.training.worker", "launcher": "kubeyolo.launch.launcher"}

PACKAGES = {"cv2": "opencv-python-headless", "yaml": "pyyaml"}

# Reached by reading alone: runtimes and measurements that the step does not call.
NEVER_CALLED = {
    "validate": {"pycocotools"},
    "train": {"onnxruntime"},
    "quantize": {"kubeyolo.evaluation.network", "mindspore"},
    "launch": {"kubeyolo.evaluation.predictor", "pycocotools"},
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


def packages_of(extra: str) -> dict[str, str]:
    """Return the outer packages that the steps of an extra reach, each with the module that imports it."""
    skipped = NEVER_CALLED.get(extra, set())
    waiting = [PROGRAMS.get(step, f"kubeyolo.steps.{step}") for step in STEPS[extra]]
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


@pytest.mark.parametrize("extra", STEPS)
def test_an_extra_has_what_its_steps_import(extra: str) -> None:
    found = packages_of(extra)
    assert {name: found[name] for name in found.keys() - requirements(extra)} == {}


def test_the_walk_finds_what_is_known() -> None:
    assert "kubernetes" in packages_of("launch")
    assert {"mindspore", "pycocotools", "onnxruntime"} <= packages_of("export").keys()
    assert "mindspore" not in packages_of("launch")
