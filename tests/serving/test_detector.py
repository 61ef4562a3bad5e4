"""A detector that answers requests with encoded images."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest

from kubeyolo.bundle import Bundle, open_bundle
from kubeyolo.errors import InputError
from kubeyolo.pointers import ModelPointer, latest_model, write_model_pointer
from kubeyolo.serving.detector import MOST_IMAGES, ServedDetector
from kubeyolo.storage.place import Place
from tests.prediction.colour_detector import SCORE, colour_bundle
from tests.prediction.pictures import picture

RED, GREEN = (10, 20, 60, 70), (30, 40, 100, 90)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(Place.of(colour_bundle(tmp_path_factory.mktemp("colours"))))


def encoded(**areas: tuple[int, int, int, int]) -> bytes:
    data = io.BytesIO()
    picture(**areas).save(data, "PNG")
    return data.getvalue()


def test_boxes_of_several_images_come_in_pixels_of_each(bundle: Bundle) -> None:
    images = [encoded(red=RED), base64.b64encode(encoded(red=RED, green=GREEN)).decode()]
    found = ServedDetector(bundle).detect(images)
    assert found.images.tolist() == [0, 1, 1] and sorted(found.classes) == ["green", "red", "red"]
    boxes = {(image, name): box for image, name, box in zip(found.images, found.classes, found.boxes, strict=True)}
    np.testing.assert_allclose(boxes[0, "red"], RED, atol=1e-3)
    np.testing.assert_allclose(boxes[1, "green"], GREEN, atol=1e-3)
    np.testing.assert_allclose(found.scores, SCORE, atol=1e-3)
    assert not len(ServedDetector(bundle).detect(images, conf=0.95).scores)


def test_a_pointer_names_the_bundle(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> None:
    latest = latest_model(Place.of(tmp_path_factory.mktemp("store")), "yolov5n-r7")
    write_model_pointer(latest, ModelPointer(bundle=bundle.uri))
    assert ServedDetector.of(latest.uri).bundle.digest == bundle.digest


@pytest.mark.parametrize(
    ("images", "conf", "message"),
    [
        ([], None, "0 images in a request; send 1 to 64"),
        ([b"x"] * (MOST_IMAGES + 1), None, "65 images in a request"),
        (["%%%"], None, "image 0 of the request is not base64; send"),
        ([b"no image"], None, "image 0 of the request "),
        ([b"x"], 1.5, "conf_threshold = 1.5: expected a number from 0 to 1"),
        ([b"x"], "high", "conf_threshold = 'high': expected a number"),
    ],
)
def test_a_request_that_cannot_be_used_is_refused(
    bundle: Bundle, images: list[bytes | str], conf: float, message: str
) -> None:
    with pytest.raises(InputError) as error:
        ServedDetector(bundle).detect(images, conf)
    assert message in str(error.value)
