"""No package sends telemetry: its variables are set everywhere; and attempts to connect are seen."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kubeyolo import NO_TELEMETRY
from kubeyolo.processes import CONTAINER_VARIABLES
from tests.browser import ARGUMENTS, chromium_binary
from tests.connections import MACHINE_ID, NO_STRACE, can_trace, connections, outside_ci, traced

ROOT = Path(__file__).resolve().parent.parent

IN_A_CHILD = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"

CONTROL = """
import contextlib, socket
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    with socket.socket(type=kind) as one:
        one.setblocking(False)
        with contextlib.suppress(OSError):
            one.connect(("192.0.2.1", 443))
with socket.socket(type=socket.SOCK_DGRAM) as one, contextlib.suppress(OSError):
    one.sendto(b"", ("192.0.2.2", 80))
with socket.socket(socket.AF_INET6) as one, contextlib.suppress(OSError):
    one.setblocking(False)
    one.connect(("2001:db8::1", 8080))
with socket.socket(socket.AF_UNIX) as one, contextlib.suppress(OSError):
    one.connect("/run/kubeyolo-test")
with socket.socket() as one, contextlib.suppress(OSError):
    one.connect(("127.0.0.1", 9))
"""

BROWSER = """
import sys
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    chromium = playwright.chromium.launch(executable_path=sys.argv[1], args=sys.argv[2:])
    page = chromium.new_page()
    page.goto("about:blank")
    page.wait_for_timeout(2000)
    chromium.close()
"""

IPV6_PROBE = "[2001:4860:4860::8888]:443"
"""Chromium connects a UDP socket to it, and sends nothing, to learn whether there is a route for IPv6."""


def attempts(command: list[str], trace: Path) -> set[str]:
    if not can_trace():
        pytest.skip(NO_STRACE)
    done = subprocess.run(traced(command, trace), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return connections(trace)


@pytest.mark.strays("connects to addresses that do not exist, to see them listed")
def test_attempts_of_a_child_process_are_listed(tmp_path: Path) -> None:
    found = attempts([sys.executable, "-c", IN_A_CHILD, CONTROL], tmp_path / "trace")
    unix = '"/run/kubeyolo-test"'
    assert found == {"192.0.2.1:443", "192.0.2.2:80", "[2001:db8::1]:8080", unix, "127.0.0.1:9"}


def test_a_process_that_connects_to_nothing_has_an_empty_list(tmp_path: Path) -> None:
    assert (
        attempts([sys.executable, "-c", IN_A_CHILD, "import getpass; getpass.getuser()"], tmp_path / "trace") == set()
    )


@pytest.mark.strays("Chromium asks whether there is a route for IPv6")
def test_the_browser_of_the_tests_asks_for_no_name(tmp_path: Path) -> None:
    pytest.importorskip("playwright", reason="playwright is not installed")
    binary = chromium_binary()
    if binary is None:
        pytest.skip("no Chromium: install chromium or set CHROMIUM_BIN")
    found = attempts([sys.executable, "-c", BROWSER, str(binary), *ARGUMENTS], tmp_path / "trace")
    assert {address for address in found if not address.startswith('"')} <= {IPV6_PROBE}


@pytest.mark.parametrize("first", ["import kubeyolo; ", ""])
def test_onnxruntime_makes_an_id_of_the_machine_only_without_kubeyolo(tmp_path: Path, first: str) -> None:
    """With telemetry the import makes an id; seconds later it would connect, which the proxy prevents."""
    home = tmp_path / "home"
    environment = outside_ci(home) | dict.fromkeys(("https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    command = [sys.executable, "-c", f"{first}import onnxruntime"]
    subprocess.run(command, env=environment, cwd=ROOT, check=True, timeout=120)
    assert (home / MACHINE_ID).exists() is not bool(first)


def test_child_processes_of_kubeyolo_have_the_variables(tmp_path: Path) -> None:
    show = "import os, json; print(json.dumps(dict(os.environ)))"
    command = [sys.executable, "-c", f"import kubeyolo; {IN_A_CHILD}", show]
    environment = outside_ci(tmp_path / "home")
    assert not environment.keys() & NO_TELEMETRY.keys()
    said = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert json.loads(said).items() >= NO_TELEMETRY.items()


def test_the_tests_have_the_variables() -> None:
    assert os.environ.items() >= NO_TELEMETRY.items()


@pytest.mark.parametrize("path", sorted((ROOT / "docker").glob("*.Dockerfile")), ids=lambda path: path.name)
def test_every_image_has_the_variables(path: Path) -> None:
    stages = re.split(r"^(?=FROM )", path.read_text(), flags=re.MULTILINE)
    # The last stages of a file with several images build on this one.
    (stage,) = [stage for stage in stages if "\nENV PATH=" in stage]
    variables = dict(re.findall(r"^(?:ENV |    )(\w+)=(\S+)", stage, flags=re.MULTILINE))
    assert variables.items() >= CONTAINER_VARIABLES.items()
