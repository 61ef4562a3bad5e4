"""How images for Ascend are built: from which base, with which of MindSpore's files, and with CANN's variables."""

from __future__ import annotations

import importlib.util
import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.ascend import CHIPS, RELEASES
from kubeyolo.catalogue import STEPS

ROOT = Path(__file__).resolve().parents[1]
BUILD = runpy.run_path(str(ROOT / "docker" / "build.py"))
INSTALL = runpy.run_path(str(ROOT / "docker" / "install.py"))
SYSTEM = runpy.run_path(str(ROOT / "docker" / "system.py"))
IMAGES = ("evaluate", "export", "train")


def parsed(monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    return BUILD["parse"](words)


def test_the_images_are_those_of_steps_that_may_have_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert BUILD["DEVICE_IMAGES"] == IMAGES
    # The job of quantize trains in the image of train.
    assert {step.image for step in STEPS.values() if step.has_job and step.name != "quantize"} == {*IMAGES}
    assert parsed(monkeypatch, "--device", "ascend").names == IMAGES
    assert parsed(monkeypatch).names == BUILD["IMAGES"]
    assert parsed(monkeypatch).base_image == ""


@pytest.mark.parametrize("chip", CHIPS)
def test_the_base_image_follows_from_the_locked_mindspore(monkeypatch: pytest.MonkeyPatch, chip: str) -> None:
    given = parsed(monkeypatch, "--device", "ascend", "--chip", chip, "train")
    version = BUILD["locked_version"]("mindspore")
    assert given.base_image == RELEASES[version].base_image(chip)
    builder = BUILD["Builder"]("docker", base_image=given.base_image, device="ascend")
    command = builder.build_command("train", "1.0", "abc", ())
    assert f"BASE_IMAGE=docker.io/ascendai/cann:8.2.rc1-{chip}-ubuntu22.04-py3.11" in command
    assert "DEVICE=ascend" in command
    own = parsed(monkeypatch, "--device", "ascend", "--base-image", "mine/cann:1", "train")
    assert own.base_image == "mine/cann:1"


def test_a_mindspore_without_a_known_cann_is_refused_with_the_list(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as raised:
        BUILD["ascend_base_image"]("2.8.0", "910b")
    text = str(raised.value)
    assert text.startswith(
        "MindSpore 2.8.0 (constraints.txt) on chip 910b: no base image is known; known are MindSpore"
    )
    assert "MindSpore 2.7.2 with CANN 8.5.0" in text and text.endswith("or set BASE_IMAGE=") and "910b, a3" in text
    with pytest.raises(SystemExit, match=r"on chip 310p: no base image is known"):
        BUILD["ascend_base_image"]("2.7.0", "310p")
    (tmp_path / "constraints.txt").write_text("mindspore==2.9.0\nmindspore-lite==1\n")
    assert BUILD["locked_version"]("mindspore", tmp_path / "constraints.txt") == "2.9.0"


def test_an_image_whose_steps_have_no_device_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed(monkeypatch, "--device", "ascend", "train", "launch")
    assert "the steps of image launch have no device; build it without DEVICE=ascend" in capsys.readouterr().err


def stages(image: str) -> dict[str, str]:
    """Return the text of each stage of an image's Dockerfile, by name."""
    text = BUILD["dockerfile_of"](image).read_text()
    parts = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    return {re.search(r"AS (\S+)", part)[1]: part for part in parts}  # type: ignore[index]


@pytest.mark.parametrize("image", IMAGES)
def test_a_dockerfile_sets_canns_variables_and_no_entrypoint(image: str) -> None:
    found = stages(image)
    ascend = found["base-ascend"]
    for folder in ("lib64", "lib64/common", "lib64/driver"):
        assert f"/usr/local/Ascend/driver/{folder}:" in ascend
    assert ":$LD_LIBRARY_PATH\n" in ascend and "\nENTRYPOINT []\n" in ascend
    assert found["base-cpu"].strip().partition("\n")[0] == "${BASE_IMAGE} AS base-cpu"
    last = found[image]
    if image == "evaluate":
        assert last.startswith("common AS") and found["common"].startswith("base-${DEVICE} AS common")
    else:
        assert last.startswith("base-${DEVICE} AS")
    assert 'python3 /run/system.py --device "$DEVICE"' in last
    assert 'io.kubeyolo.device="$DEVICE"' in last
    assert f'install.py dependencies {image} --device "$DEVICE"' in found["dependencies"]


def test_the_environment_for_ascend_sees_the_packages_of_the_base_image() -> None:
    assert "--system-site-packages" in INSTALL["environment_command"]("ascend")
    assert "--system-site-packages" not in INSTALL["environment_command"]("cpu")


@pytest.mark.parametrize("device", ["cpu", "ascend"])
def test_only_the_plugins_of_the_device_stay(tmp_path: Path, device: str) -> None:
    """The names of files are those of the installed MindSpore."""
    spec = importlib.util.find_spec("mindspore")
    assert spec is not None and spec.origin is not None
    plugins = tmp_path / "mindspore" / "lib" / "plugin"
    plugins.mkdir(parents=True)
    for path in (Path(spec.origin).parent / "lib" / "plugin").iterdir():
        if path.is_dir():
            (plugins / path.name).mkdir()
        else:
            (plugins / path.name).touch()
    before = {path.name for path in plugins.iterdir()}
    of_ascend = {"ascend", "libmindspore_ascend.so.2", "libmindspore_ops_ascend.so"}
    assert of_ascend | {"cpu", "gpu", "libmindspore_gpu.so.11.6"} <= before
    INSTALL["remove_other_devices"](tmp_path, device)
    after = {path.name for path in plugins.iterdir()}
    assert after & of_ascend == (of_ascend if device == "ascend" else set())
    assert "cpu" in after and not [name for name in after if "gpu" in name]


def test_a_base_image_without_cann_is_refused_with_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = SYSTEM["check_cann"]
    with pytest.raises(SystemExit) as raised:
        check({"ASCEND_OPP_PATH": str(tmp_path / "opp")})
    text = str(raised.value)
    assert "ASCEND_HOME_PATH is not set" in text and f"ASCEND_OPP_PATH = {tmp_path / 'opp'} is not a folder" in text
    assert "no folder of LD_LIBRARY_PATH has libge_runner.so" in text and "does not find the package te" in text
    for name in ("opp", "lib64", "python/te"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "lib64" / "libge_runner.so").touch()
    (tmp_path / "python" / "te" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "python")
    whole = {
        "ASCEND_HOME_PATH": str(tmp_path),
        "ASCEND_OPP_PATH": str(tmp_path / "opp"),
        "LD_LIBRARY_PATH": f"/usr/local/Ascend/driver/lib64:{tmp_path / 'lib64'}",
    }
    check(whole)
    with pytest.raises(SystemExit, match="no CANN that a pod can use: no folder of LD_LIBRARY_PATH has"):
        check(whole | {"LD_LIBRARY_PATH": ""})
