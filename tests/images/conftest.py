"""Images as ``make images`` has built them; ``make test-images`` runs these tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def pytest_configure(config: pytest.Config) -> None:
    file = references_file()
    if not file.is_file():
        pytest.exit(f"the tests of images need {file}: make images, or set KUBEYOLO_IMAGES", returncode=2)
    if shutil.which(engine_name()) is None:
        pytest.exit(f"{engine_name()} is not installed; ENGINE=docker or ENGINE=podman", returncode=2)


def references_file() -> Path:
    return Path(os.environ.get("KUBEYOLO_IMAGES") or ROOT / "build" / "images.yaml")


def engine_name() -> str:
    return os.environ.get("ENGINE") or "docker"


@pytest.fixture(scope="session")
def engine() -> str:
    return engine_name()


@pytest.fixture(scope="session")
def references() -> dict[str, str]:
    """References of the images by name, without ``kubeyolo-``."""
    known = yaml.safe_load(references_file().read_text())
    return {name.removeprefix("kubeyolo-"): reference for name, reference in known.items()}
