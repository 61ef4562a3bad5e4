"""What a machine without Ascend says, with MindSpore's own errors; and which versions belong together."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kubeyolo import ascend
from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError
from kubeyolo.runtime import check_device
from tests.steps.called import train, validate_dataset
from tests.steps.fixed_detector import write_data

ROOT = Path(__file__).resolve().parents[1]

# MindSpore 2.7.0 whose files for Ascend were removed, as in images for CPU.
WITHOUT_PLUGIN = """Unsupported device target Ascend. This process only supports one of the ['CPU']. Please check \
whether the Ascend environment is installed and configured correctly, and check whether current mindspore wheel \
package was built with "-e Ascend".

----------------------------------------------------
- C++ Call Stack: (For framework developers)
----------------------------------------------------
mindspore/core/utils/ms_context.cc:295 SetDeviceTargetFromInner
"""

CONFIGURE = """
import sys
from pathlib import Path
from kubeyolo import ascend
from kubeyolo.errors import InputError
from kubeyolo.runtime import configure_mindspore
ascend.DEVICES = Path(sys.argv[1])
try:
    configure_mindspore("Ascend")
except InputError as error:
    print(f"REFUSED {error}")
"""


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of /dev, without cards, of a machine without a driver."""
    folder = tmp_path / "dev"
    folder.mkdir()
    (folder / "davinci_manager").touch()
    monkeypatch.setattr(ascend, "DEVICES", folder)
    monkeypatch.setattr(ascend, "DRIVER", tmp_path / "driver" / "lib64")
    return folder


def test_a_machine_without_a_card_is_told_everything_it_lacks(devices: Path) -> None:
    text = ascend.missing_parts({})
    assert text.startswith(f"there is no card ({devices}/davinci*), no driver (")
    assert "and no CANN (ASCEND_HOME_PATH is not set); run the step in a job of an Ascend preset" in text
    ascend.DRIVER.mkdir(parents=True)
    assert ascend.missing_parts({"ASCEND_HOME_PATH": "/cann"}).startswith(f"there is no card ({devices}/davinci*); run")
    (devices / "davinci3").touch()
    assert ascend.missing_parts({}) == ""


def test_only_ascend_needs_a_card(devices: Path) -> None:
    check_device("CPU")
    with pytest.raises(InputError, match="^device_target 'Ascend' cannot be used on this machine: there is no card"):
        check_device("Ascend")


def test_the_library_that_mindspore_cannot_load_is_named_with_its_remedy(devices: Path) -> None:
    """With a card in /dev, but neither CANN nor a driver: the error is that of the installed MindSpore."""
    (devices / "davinci0").touch()
    environment = {name: value for name, value in os.environ.items() if name != "ASCEND_HOME_PATH"}
    done = subprocess.run(
        [sys.executable, "-c", CONFIGURE, str(devices)],
        capture_output=True,
        text=True,
        env=environment | {"PYTHONPATH": str(ROOT)},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    [line] = [line for line in done.stdout.splitlines() if line]
    assert re.match(
        r"REFUSED device_target 'Ascend' cannot be used on this machine: MindSpore cannot load libge_runner\.so: CANN "
        r"or the driver is missing, or not in LD_LIBRARY_PATH "
        r"\(CANN 8\.2\.RC1 for MindSpore 2\.7\.0, driver 25\.2\.0\); "
        r"use an image of `make images DEVICE=ascend`, or call CANN's set_env\.sh first",
        line,
    )


def test_the_remedy_depends_on_what_is_there(devices: Path) -> None:
    error = "Load dynamic library: libmindspore_ascend.so.2 failed. libhal.so: cannot open shared object file: No such"
    cann = {"ASCEND_HOME_PATH": "/cann"}
    assert "let the pod have the driver in" in ascend.explain(error, "2.7.0", cann)
    ascend.DRIVER.mkdir(parents=True)
    assert "; add the folder with libhal.so to LD_LIBRARY_PATH" in ascend.explain(error, "2.8.0", cann)
    assert "installed without its plugin for Ascend" in ascend.explain(WITHOUT_PLUGIN, "2.7.0", cann)
    other = (
        "built with.\nLoad dynamic library: libmindspore_ascend.so.2 failed. /cann/libge_runner.so: file too short\n"
    )
    assert ascend.explain(other, "2.7.0", cann).startswith(
        "MindSpore cannot load its plugin for Ascend (/cann/libge_runner.so: file too short); give it the CANN and the "
        "driver that it needs (CANN 8.2.RC1 for"
    )
    assert ascend.explain("\n EE9999: failed\nmore", "2.7.0", cann).startswith("EE9999: failed; run the step")
    for text in (error, WITHOUT_PLUGIN, "a\nb"):
        assert "\n" not in ascend.explain(text, "2.7.0", cann)


def test_training_on_ascend_ends_at_once_without_a_card(tmp_path: Path) -> None:
    dataset = validate_dataset(str(write_data(tmp_path / "data")), str(tmp_path / "store")).dataset
    config = Config.model_validate({"train": {"device_target": "Ascend", "image_size": 64, "per_batch_size": 2}})
    with pytest.raises(InputError, match="device_target 'Ascend' cannot be used on this machine: there is no card"):
        train(dataset, str(tmp_path / "train"), config)


def test_a_version_of_mindspore_names_the_image_of_each_chip() -> None:
    release = ascend.RELEASES["2.7.0"]
    assert (release.cann, release.driver) == ("8.2.RC1", "25.2.0")
    assert release.base_image("910b") == "docker.io/ascendai/cann:8.2.rc1-910b-ubuntu22.04-py3.11"
    assert ascend.RELEASES["2.10.0"].base_image("a3") == "docker.io/ascendai/cann:9.1.0-a3-ubuntu22.04-py3.11"
    assert "2.8.0" not in ascend.RELEASES
