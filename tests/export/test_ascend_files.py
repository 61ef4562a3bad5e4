"""The commands and the AIPP configuration that a bundle has for Ascend's tools."""

from __future__ import annotations

import re
import shlex

import pytest

from kubeyolo.bundle import AIPP, AIR, MINDIR, ONNX
from kubeyolo.export.ascend_files import aipp_config, ascend_text
from tests.export.tiny_detector import SIZE, manifest

HEIGHT, WIDTH = SIZE

ATC = {"framework", "model", "output", "soc_version", "input_format", "input_shape", "insert_op_conf"}
"""Options of atc (CANN 8.0 to 9.1) that are used."""
CONVERTER = {"fmk", "modelFile", "outputFile", "saveType", "optimize"}
"""Options of converter_lite (MindSpore Lite 2.10) that are used."""


def commands(text: str) -> dict[str, list[dict[str, str]]]:
    """Return the options of each command in a text, by the name of the program."""
    found: dict[str, list[dict[str, str]]] = {}
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            program, *words = shlex.split(line)
            if program != "export":
                pairs = [word.removeprefix("--").split("=", 1) for word in words]
                found.setdefault(program, []).append({name: value for name, value in pairs})
    return found


def test_the_command_for_onnx_has_the_input_of_the_file() -> None:
    [options] = commands(ascend_text(manifest(), [ONNX], 17, 1))["atc"]
    assert options.keys() <= ATC
    assert options["framework"] == "5" and options["model"] == ONNX
    assert options["input_shape"] == f"images:1,3,{HEIGHT},{WIDTH}" and options["input_format"] == "NCHW"


def test_mindir_goes_to_the_converter_and_air_to_atc_without_a_shape() -> None:
    found = commands(ascend_text(manifest(), [MINDIR, AIR], 17, 4))
    [converter], [atc] = found["converter_lite"], found["atc"]
    assert converter.keys() <= CONVERTER and converter["fmk"] == "MINDIR" and converter["modelFile"] == MINDIR
    assert atc["framework"] == "1" and "input_shape" not in atc
    assert "for batches of 4" in ascend_text(manifest(), [MINDIR], 17, 4)


@pytest.mark.parametrize(("opset", "version"), [(11, "8.0"), (13, "8.0"), (17, "9.0")])
def test_the_version_of_cann_follows_from_the_opset(opset: int, version: str) -> None:
    assert f"`atc` of CANN {version} and later" in ascend_text(manifest(), [ONNX], opset, 1)


def test_aipp_divides_rgb_pixels_as_the_preprocessing_does() -> None:
    text = aipp_config(manifest())
    body = re.fullmatch(r"aipp_op \{\n(.*)\}\n", text, re.DOTALL)
    assert body
    pairs = [line.split(":") for line in body[1].splitlines() if not line.strip().startswith("#")]
    values = {name.strip(): value.strip() for name, value in pairs}
    assert values["aipp_mode"] == "static" and values["input_format"] == "RGB888_U8"
    assert (values["src_image_size_w"], values["src_image_size_h"]) == (str(WIDTH), str(HEIGHT))
    for channel in range(3):
        mean, least = float(values[f"mean_chn_{channel}"]), float(values[f"min_chn_{channel}"])
        factor = float(values[f"var_reci_chn_{channel}"])
        assert (255 - mean - least) * factor == pytest.approx(1, abs=1e-9) and (0 - mean - least) * factor == 0
    assert AIPP in ascend_text(manifest(), [ONNX], 17, 1)
