from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from kubeyolo.errors import InputError
from kubeyolo.weights.darknet import DarknetConvolution, darknet_classes, read_darknet, write_darknet
from tests import golden

SMALL = [
    DarknetConvolution("layer000", (4, 3, 3, 3), True),
    DarknetConvolution("layer001", (3 * 7, 4, 1, 1), False, anchors=3),
]


def arrays_of(convolutions: list[DarknetConvolution]) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        name: generator.standard_normal(shape, dtype=np.float32)
        for convolution in convolutions
        for name, shape in convolution.arrays()
    }


def test_the_order_within_a_convolution_is_that_of_darknet(tmp_path: Path) -> None:
    arrays = arrays_of(SMALL)
    write_darknet(tmp_path / "a.weights", SMALL, arrays.__getitem__)
    data = (tmp_path / "a.weights").read_bytes()
    assert struct.unpack("<3iq", data[:20]) == (0, 2, 5, 0)
    order = [
        f"layer000.{leaf}" for leaf in ("bn.bias", "bn.weight", "bn.running_mean", "bn.running_var", "conv.weight")
    ]
    order += ["layer001.conv.bias", "layer001.conv.weight"]
    wanted = np.concatenate([arrays[name].reshape(-1) for name in order])
    np.testing.assert_array_equal(np.frombuffer(data[20:], "<f4"), wanted)


@pytest.mark.parametrize(("version", "header"), [((0, 1, 0), 16), ((0, 2, 0), 20), ((1, 0, 0), 20)])
def test_the_length_of_the_header_goes_by_the_version(
    tmp_path: Path, version: tuple[int, int, int], header: int
) -> None:
    arrays = arrays_of(SMALL)
    path = tmp_path / "a.weights"
    write_darknet(path, SMALL, arrays.__getitem__)
    path.write_bytes(struct.pack("<3i", *version).ljust(header, b"\0") + path.read_bytes()[20:])
    read = read_darknet(path, SMALL)
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name].float32(), array)


def test_the_number_of_classes_follows_from_the_length(tmp_path: Path) -> None:
    path = tmp_path / "a.weights"
    write_darknet(path, SMALL, arrays_of(SMALL).__getitem__)
    assert darknet_classes(path, [convolution.with_classes(80) for convolution in SMALL]) == 2


def test_another_length_is_refused_with_both_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.weights"
    write_darknet(path, SMALL, arrays_of(SMALL).__getitem__)
    have = 4 * 27 + 16 + 21 * 5
    path.write_bytes(path.read_bytes() + bytes(8))
    with pytest.raises(InputError, match=rf"has {have + 2} weights, but the network needs {have};"):
        read_darknet(path, SMALL)
    with pytest.raises(InputError, match=rf"has {have + 2} weights.* the network has {have} with 2 classes"):
        darknet_classes(path, SMALL)
    assert len(read_darknet(path, SMALL, more=True)) == 7
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=rf"has {have - 3} weights, but the network needs {have};"):
        read_darknet(path, SMALL, more=True)


@pytest.mark.parametrize("data", [b"", bytes(8), bytes(15), struct.pack("<3iq", 0, 2, 5, 0) + b"abc", b"\xff" * 64])
def test_what_is_no_darknet_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.weights"
    path.write_bytes(data)
    with pytest.raises(InputError, match=str(path)):
        read_darknet(path, SMALL)


def darknet_cases() -> list[object]:
    return golden.case_parameters([case for case in golden.model_cases() if case == "darknet_yolov4-tiny"])


@pytest.mark.parametrize("case", darknet_cases())
def test_a_whole_golden_network_is_written_and_read_back(tmp_path: Path, case: str) -> None:
    weights = golden.case_weights(case)
    anchors = 3
    convolutions = [
        DarknetConvolution(
            name.removesuffix(".conv.weight"),
            array.shape,
            name.replace("conv.weight", "bn.weight") in weights,
            0 if name.replace("conv.weight", "bn.weight") in weights else anchors,
        )
        for name, array in weights.items()
        if name.endswith(".conv.weight")
    ]
    path = tmp_path / "a.weights"
    write_darknet(path, convolutions, weights.__getitem__)
    statistics = sum(2 * layer.shape[0] for layer in convolutions if layer.batch_norm)
    assert path.stat().st_size == 20 + 4 * (golden.read_json(case, "meta.json")["params"] + statistics)
    assert darknet_classes(path, convolutions) == golden.read_json(case, "meta.json")["nc"]
    read = read_darknet(path, convolutions)
    assert read.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(read[name].float32(), array)
