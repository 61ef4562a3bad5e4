"""Rectangular batches: which images are seen together and in which shape."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubeyolo.config.schema import EvaluateConfig
from kubeyolo.data.letterbox import letterbox_geometry
from kubeyolo.errors import InputError
from kubeyolo.evaluation.batches import most_shapes, rectangular_batches, square_batches
from kubeyolo.evaluation.predictor import Predictor
from kubeyolo.evaluation.sharing import WHOLE, Share
from kubeyolo.evaluation.split_evaluation import detect_split, evaluate_split
from kubeyolo.storage.place import Place
from tests.evaluation.rectangles import RectangleRuntime, RectangleSplit, dataset_manifest
from tests.export.tiny_detector import manifest

SIDES = st.tuples(st.integers(1, 3000), st.integers(1, 3000))
STRIDE = 32


def index_of(sides: list[tuple[int, int]]) -> Any:
    """Return what an index has of the images of some widths and heights."""
    widths, heights = zip(*sides, strict=True) if sides else ((), ())
    return SimpleNamespace(width=np.array(widths, np.int32), height=np.array(heights, np.int32))


@given(
    sides=st.lists(SIDES, max_size=60),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    batch_size=st.integers(1, 17),
    world=st.integers(1, 5),
)
def test_every_image_is_seen_once_in_a_shape_that_it_fits(
    sides: list[tuple[int, int]], size: tuple[int, int], batch_size: int, world: int
) -> None:
    size = (size[0] * STRIDE, size[1] * STRIDE)
    plan = rectangular_batches(index_of(sides), batch_size, size, STRIDE)
    seen = [int(plan.order[at]) for rank in range(world) for at in Share(rank, world).numbers(len(sides), batch_size)]
    assert sorted(seen) == list(range(len(sides)))
    for position, image in enumerate(plan.order.tolist()):
        shape = plan.size(position)
        assert all(side % STRIDE == 0 and side <= whole + STRIDE for side, whole in zip(shape, size, strict=True))
        width, height = sides[image]
        whole, seen_as = letterbox_geometry(width, height, size), letterbox_geometry(width, height, shape, size)
        # Resized as in the whole size, with half a stride or more of padding on each axis.
        assert (seen_as.width, seen_as.height) == (whole.width, whole.height)
        assert min(shape[0] - whole.height, shape[1] - whole.width) >= STRIDE / 2
    assert len(plan.shapes) <= most_shapes(size, STRIDE)


def test_the_shapes_of_yolov5() -> None:
    # At 640 and stride 32: half of 640 is 10 strides, and 10.5 are rounded up to 11; 640 becomes 672.
    index = index_of([(640, 320), (320, 640), (1280, 640), (500, 1000), (640, 640), (100, 90)])
    plan = rectangular_batches(index, 2, (640, 640), STRIDE)
    assert plan.order.tolist() == [0, 2, 5, 4, 1, 3]
    assert plan.sizes == ((352, 672), (672, 672), (672, 352))
    assert plan.words() == (
        "rectangular batches: 3 shapes, from 352 x 672 to 672 x 672 (height x width), with 0.31 megapixels an image; "
        "the network is compiled once for each"
    )
    assert square_batches(5, 2, (640, 640)).sizes == ((640, 640),) * 3


class Ranks:
    """Processes that evaluate a split of differently shaped images together."""

    def __init__(self, folder: Path, world: int, batch_size: int, tta: bool) -> None:
        self.split, self.runtime = RectangleSplit(11, seed=3), RectangleRuntime()
        self.shares = [Share(rank, world, Place.of(folder), "d") for rank in range(world)]
        self.config = EvaluateConfig(rect=True, tta=tta)
        self.predictor = Predictor(manifest(), self.runtime, batch_size=batch_size, tta=tta)

    def evaluate(self, share: Share) -> Any:
        split: Any = self.split
        return evaluate_split(self.predictor, split, dataset_manifest(), self.config, False, share)

    def detect_others(self) -> None:
        split: Any = self.split
        for share in self.shares[1:]:
            detect_split(self.predictor, split, dataset_manifest(), self.config, False, share)


@pytest.mark.parametrize(("world", "batch_size", "tta"), [(1, 1, False), (2, 4, False), (3, 2, True), (4, 16, False)])
def test_rectangles_find_every_object_in_the_order_of_the_split(
    tmp_path: Path, world: int, batch_size: int, tta: bool
) -> None:
    ranks = Ranks(tmp_path, world, batch_size, tta)
    alone = ranks.evaluate(WHOLE)
    result, detections = alone
    assert sorted(ranks.split.read) == list(range(11))
    assert list(dict.fromkeys(row["image_id"] for row in detections)) == ranks.split.index.image_id.tolist()
    assert result.numbers["AP50"] == pytest.approx(1) and result.rect
    if world > 1:
        ranks.detect_others()
        assert ranks.evaluate(ranks.shares[0]) == alone


def test_rectangles_have_fewer_pixels_and_a_bounded_number_of_shapes(tmp_path: Path) -> None:
    ranks = Ranks(tmp_path, 1, 1, False)
    ranks.evaluate(WHOLE)
    shapes = [shape[2:] for shape in ranks.runtime.shapes]
    assert len(shapes) == 11 and 1 < len(set(shapes)) <= most_shapes((96, 128), STRIDE) == 9
    assert all(height <= 128 and width <= 160 for height, width in shapes)


def test_a_file_for_one_image_size_is_refused() -> None:
    runtime, split = RectangleRuntime(), RectangleSplit(3)
    runtime.image_size = (96, 128)
    predictor = Predictor(manifest(), runtime, "onnx")
    with pytest.raises(InputError, match="rectangular batches needs a network .* mindspore runtime, or leave --rect"):
        evaluate_split(predictor, split, dataset_manifest(), EvaluateConfig(rect=True))  # type: ignore[arg-type]
    assert split.read == []
