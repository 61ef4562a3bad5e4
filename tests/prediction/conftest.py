from __future__ import annotations

import pytest

from kubeyolo.bundle import Bundle, open_bundle
from kubeyolo.storage.place import Place
from tests.prediction.colour_detector import colour_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(Place.of(colour_bundle(tmp_path_factory.mktemp("colours"))))
