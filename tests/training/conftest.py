from __future__ import annotations

import pytest

from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.data.shards import write_dataset
from kubeyolo.runtime import configure_mindspore
from kubeyolo.storage.place import Place
from tests.training.pretraining import Trainings


@pytest.fixture(scope="session")
def mindspore_ready() -> None:
    configure_mindspore("CPU", 1)


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of the manifest of a written data set of 24 images to train with and 4 to validate."""
    folder = tmp_path_factory.mktemp("small-dataset")
    source = generate_sample_dataset(folder / "source", train=24, val=4)
    return write_dataset(source, Place.of(folder / "store")).uri


@pytest.fixture(scope="session")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    return Trainings(tmp_path_factory)
