"""Every key of every preset stands in one of three bands."""

from __future__ import annotations

import pytest

from kubeyolo.config.load import BANDS, preset, preset_bands, preset_names
from kubeyolo.errors import InputError


@pytest.mark.parametrize("model", preset_names())
def test_every_key_of_a_preset_is_in_one_band(model: str) -> None:
    bands = preset_bands(model)
    assert tuple(bands) == BANDS and all(bands.values())
    keys = [key for band in bands.values() for key in band]
    assert len(set(keys)) == len(keys)
    assert {*keys, "model"} == set(preset(model))
    assert "train.image_size" in bands["often changed"]
    assert "augment.mosaic" in bands["sometimes changed"]
    assert "train.momentum" in bands["leave alone"]


def test_unknown_models_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'yolov4-tiny'"):
        preset_bands("yolov4-tny")
