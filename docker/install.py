"""The build stages of the images: install the dependencies of an extra, then the library, in separate folders.

It needs the Python and pip of the base image, but no compiler. The package index, its credentials and certificates come
from /etc/pip.conf and CERTIFICATES. The builder mounts these files, so they are not stored in a layer.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ENVIRONMENT = Path("/opt/kubeyolo")
LIBRARY = Path("/opt/library")
CERTIFICATES = Path("/run/secrets/certificates.pem")

ASCEND = "ascend"
"""The device, and the extra of the package with what CANN's Python packages import."""

# Kubeflow tells the pods of steps which run of MLflow they belong to.
_BESIDES = {"train": ("mlflow",)}

# Files in lib/plugin of the MindSpore wheel for devices other than the device of the image.
_OTHER_DEVICES = {
    "cpu": ("gpu*", "ascend*", "libmindspore_gpu*", "libmindspore_ascend*", "libmindspore_ops_ascend*"),
    ASCEND: ("gpu*", "libmindspore_gpu*"),
}


def requirements(project: Path, *extras: str) -> list[str]:
    """Return the requirements of the project with some of its extras.

    Raises:
        SystemExit: The project does not have one of these extras.
    """
    table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    known = table["optional-dependencies"]
    found = list(table["dependencies"])
    for extra in extras:
        if extra not in known:
            raise SystemExit(f"{project}: no extra {extra!r}; there are {', '.join(sorted(known))}")
        found += known[extra]
    return found


def extras_of(extra: str, device: str) -> tuple[str, ...]:
    """Return the extras of an image: those of its steps and, for Ascend, what CANN's Python packages import."""
    return (extra, *_BESIDES.get(extra, ()), *((ASCEND,) if device == ASCEND else ()))


def environment_command(device: str) -> list[str]:
    """Return the command that creates the environment.

    For Ascend it also sees the packages of the base image: what CANN's own packages import is not fully documented, and
    CANN's images have it in their Python. Packages of the environment come first.
    """
    shared = ["--system-site-packages"] if device == ASCEND else []
    return [sys.executable, "-m", "venv", "--without-pip", *shared, str(ENVIRONMENT)]


def install_dependencies(source: Path, extra: str, device: str) -> None:
    """Create an environment with the dependencies of an extra, in their locked versions, for a kind of device."""
    _run(*environment_command(device))
    wanted = requirements(source / "pyproject.toml", *extras_of(extra, device))
    _pip("install", "--constraint", str(source / "constraints.txt"), *wanted)
    for site in ENVIRONMENT.glob("lib/python3*/site-packages"):
        remove_other_devices(site, device)
        remove_tests(site)
        _compile(site)


def install_library(source: Path) -> None:
    """Build the wheel and install it without dependencies in a folder that is later copied over the environment."""
    wheels = source / "wheels"
    _pip("wheel", "--no-deps", "--wheel-dir", str(wheels), str(source))
    (wheel,) = wheels.glob("kubeyolo-*.whl")
    _pip("install", "--no-deps", "--ignore-installed", "--prefix", str(LIBRARY), str(wheel))
    for site in LIBRARY.glob("lib/python3*/site-packages"):
        _compile(site)


def remove_other_devices(site: Path, device: str) -> None:
    """Remove MindSpore's plugins for other devices, if MindSpore is installed."""
    for pattern in _OTHER_DEVICES[device]:
        for path in (site / "mindspore" / "lib" / "plugin").glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def remove_tests(site: Path) -> None:
    """Remove the tests that packages contain; no package imports its own tests."""
    for path in sorted(site.rglob("tests")):
        if path.is_dir():
            shutil.rmtree(path)


def _pip(*arguments: str) -> None:
    # The environment has no pip: the pip of the base image installs into it.
    pip = [sys.executable, "-m", "pip", "--python", str(ENVIRONMENT / "bin" / "python"), "--no-cache-dir"]
    command = [*pip, "--disable-pip-version-check", *arguments]
    _run(*command, *(["--no-compile"] if arguments[0] == "install" else []))


def _compile(site: Path) -> None:
    """Write bytecode that does not depend on time stamps, which layers may change; skip files that do not compile."""
    command = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(site)]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=False)


def _run(*command: str) -> None:
    environment = dict(os.environ)
    if CERTIFICATES.is_file():
        environment |= {"PIP_CERT": str(CERTIFICATES), "SSL_CERT_FILE": str(CERTIFICATES)}
    subprocess.run(command, env=environment, check=True)


def main() -> None:
    """Run a stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    stages = parser.add_subparsers(dest="stage", required=True)
    dependencies = stages.add_parser("dependencies")
    dependencies.add_argument("extra")
    dependencies.add_argument("--device", choices=tuple(_OTHER_DEVICES), default="cpu")
    stages.add_parser("library")
    given = parser.parse_args()
    source = Path(__file__).resolve().parent
    if given.stage == "dependencies":
        install_dependencies(source, given.extra, given.device)
    else:
        install_library(source)


if __name__ == "__main__":
    main()
