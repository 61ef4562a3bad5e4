from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from kubeyolo.bundle import Bundle
from kubeyolo.evaluation.predictor import Predictor, Thresholds, load_predictor
from kubeyolo.prediction.drawing import Painter
from kubeyolo.prediction.fonts import Fonts
from kubeyolo.prediction.sources import Source, SourceFault
from kubeyolo.prediction.stream import Failure, Prediction, predict_images
from kubeyolo.resources import usable_processors
from tests.prediction.pictures import picture

THRESHOLDS = Thresholds(0.25, 0.45, 300)


@dataclass(frozen=True)
class Made(Source):
    """A picture with a red area that is as wide as its number says; every fifth is damaged."""

    number: int = 0
    read_numbers: list[int] | None = None

    def read(self) -> bytes:
        if self.read_numbers is not None:
            self.read_numbers.append(self.number)
        if self.number % 5 == 3:
            raise (SourceFault("is damaged") if self.number % 2 else ZeroDivisionError("odd"))
        data = io.BytesIO()
        picture(red=(10, 20, 20 + self.number, 60)).save(data, "PNG")
        return data.getvalue()


@dataclass(frozen=True)
class Drawn(Source):
    """A given picture."""

    content: bytes = b""

    @classmethod
    def of(cls, image: Image.Image) -> Drawn:
        data = io.BytesIO()
        image.save(data, "PNG")
        return cls("a.png", "", PurePosixPath("a.png"), "", data.getvalue())

    def read(self) -> bytes:
        return self.content


def made(count: int, numbers: list[int] | None = None) -> list[Made]:
    return [Made(f"{n}.png", "", PurePosixPath(f"{n}.png"), "", n, numbers) for n in range(count)]


@pytest.fixture(scope="module", params=[1, 4])
def predictor(request: pytest.FixtureRequest, bundle: Bundle) -> Predictor:
    return load_predictor(bundle, "onnx", batch_size=request.param)


def test_results_come_in_the_order_of_the_images_with_failures_in_their_places(predictor: Predictor) -> None:
    found = list(predict_images(predictor, made(23), THRESHOLDS))
    assert [int(one.source.name[:-4]) for one in found] == list(range(23))
    for number, one in enumerate(found):
        if number % 5 == 3:
            reason = "is damaged" if number % 2 else "cannot be decoded (ZeroDivisionError: odd)"
            assert isinstance(one, Failure) and one.reason == reason
        else:
            assert isinstance(one, Prediction) and (one.width, one.height) == (128, 128)
            np.testing.assert_allclose(one.rows[:, :4], [[10, 20, 20 + number, 60]], atol=1e-3)


def test_few_images_are_read_ahead_of_the_one_that_is_asked_for(predictor: Predictor) -> None:
    numbers: list[int] = []
    outcomes = predict_images(predictor, made(200, numbers), THRESHOLDS)
    next(outcomes)
    assert len(numbers) <= usable_processors() + 1 + 5 * predictor.batch_size
    outcomes.close()
    assert len(numbers) < 100


def test_drawn_pictures_are_written_before_their_results_come(predictor: Predictor, tmp_path: Path) -> None:
    sources = made(9)
    targets = [tmp_path / "out" / source.name for source in sources]
    painter = Painter(("red", "green", "blue"), Fonts())
    for one, target in zip(predict_images(predictor, sources, THRESHOLDS, painter, targets), targets, strict=True):
        if isinstance(one, Prediction):
            assert one.drawn == str(target) and Image.open(target).size == (128, 128)
    assert len(list((tmp_path / "out").iterdir())) == 7


def test_a_picture_that_cannot_be_written_costs_no_result(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    targets = [tmp_path / "file" / "0.png", tmp_path / "1.png"]
    painter = Painter(("red", "green", "blue"), Fonts())
    first, second = predict_images(predictor, made(2), THRESHOLDS, painter, targets)
    assert isinstance(first, Prediction) and len(first.rows) == 1 and first.drawn is None
    assert [note.code for note in first.notes] == ["not_drawn"]
    assert isinstance(second, Prediction) and second.drawn == str(targets[1])
