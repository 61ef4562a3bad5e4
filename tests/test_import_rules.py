"""The rules of imports name every room: a new one is never left out of them."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PERMITTED = {
    "kfp": {"runs", "kubeflow"},
    "mindspore": {"models", "losses", "training", "evaluation", "export", "weights", "runtime"},
    "minio": {"storage"},
    "kubernetes": {"launch"},
}


def rooms() -> set[str]:
    found = (ROOT / "kubeyolo").iterdir()
    return {path.stem for path in found if (path / "__init__.py").is_file() or path.suffix == ".py"} - {"__init__"}


@pytest.mark.parametrize("package", PERMITTED)
def test_a_package_is_forbidden_in_every_room_but_its_own(package: str) -> None:
    rules = configparser.ConfigParser()
    rules.read(ROOT / ".importlinter")
    named = rules[f"importlinter:contract:{package}"]["source_modules"].split()
    assert set(named) == {f"kubeyolo.{room}" for room in rooms() - PERMITTED[package]}
