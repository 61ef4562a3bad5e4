"""Build the images of the steps, push them if a registry is given, and write their references to a file.

``make images`` calls it. ``kubeyolo pipeline show --images FILE`` binds the references of the file into a compiled
pipeline. Each reference identifies the content of an image, since it is part of the key of Kubeflow's cache: the digest
of a pushed image, or a tag with the id of an image that stays on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENGINES = ("docker", "podman")
REFERENCES = Path("build/images.yaml")

_CATALOGUE = runpy.run_path(str(ROOT / "kubeyolo" / "catalogue.py"))
_ASCEND = runpy.run_path(str(ROOT / "kubeyolo" / "ascend.py"))

IMAGES: tuple[str, ...] = _CATALOGUE["IMAGES"]
"""Names of the images, from the catalogue of the steps; each is also the name of its build target."""

_JOB_IN_OTHER_IMAGE = ("quantize",)
"""Steps whose job runs in the image of train."""

DEVICE_IMAGES = tuple(
    name
    for name in IMAGES
    if any(
        step.has_job and step.image == name and step.name not in _JOB_IN_OTHER_IMAGE
        for step in _CATALOGUE["STEPS"].values()
    )
)
"""Names of the images whose steps may have a job there, and with it a device."""

CHIPS: tuple[str, ...] = _ASCEND["CHIPS"]

# The files that images are built from: the revision in an image's labels is the last commit that changed one of them.
_CONTENT = ("docker", "kubeyolo", "pyproject.toml", "constraints.txt", ".dockerignore", "LICENSE", "README.md")

# The pip settings that a build needs. Certificates are passed as a separate file.
_PIP_KEYS = frozenset(
    {"index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout", "retries"}
)
_CERTIFICATES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
_PIP_LINE = re.compile(r"(?P<section>[^.=]+)\.(?P<key>[\w-]+)='(?P<value>.*)'")


@dataclass(frozen=True)
class Built:
    """A built image: its name, its reference and its unpacked size in bytes."""

    name: str
    reference: str
    size: int


@dataclass(frozen=True)
class Builder:
    """Builds images with Docker or Podman.

    Attributes:
        engine: docker or podman.
        registry: Host and path in front of the image names; empty if the images stay on this machine.
        base_image: Image with Python 3.11 to build on; if empty, the default of the Dockerfiles is used.
        device: cpu or ascend.
        flags: More flags for every build, such as ``--network=host``.
    """

    engine: str
    registry: str = ""
    base_image: str = ""
    device: str = "cpu"
    flags: tuple[str, ...] = ()

    def repository(self, name: str) -> str:
        """Return the name of an image without tag or digest."""
        # Podman names images without a host this way; Docker would take localhost for a registry.
        prefix = self.registry.rstrip("/") or ("localhost" if self.engine == "podman" else "")
        return f"{prefix}/kubeyolo-{name}".lstrip("/")

    def build_command(self, name: str, tag: str, revision: str, secrets: Sequence[str]) -> list[str]:
        """Return the command that builds an image."""
        arguments = {"VERSION": tag, "REVISION": revision}
        dockerfile = dockerfile_of(name)
        if self.base_image:
            arguments["BASE_IMAGE"] = self.base_image
        if "ARG DEVICE" in dockerfile.read_text(encoding="utf-8"):
            arguments["DEVICE"] = self.device
        command = [self.engine, "build", "--file", str(dockerfile), "--target", name]
        command += ["--tag", f"{self.repository(name)}:{tag}"]
        for key, value in arguments.items():
            command += ["--build-arg", f"{key}={value}"]
        for secret in secrets:
            command += ["--secret", secret]
        return [*command, *self.flags, str(ROOT)]

    def build(self, name: str, tag: str, revision: str, secrets: Sequence[str]) -> Built:
        """Build an image and give it a tag that identifies its content."""
        repository = self.repository(name)
        _run(self.build_command(name, tag, revision, secrets))
        facts = json.loads(_output([self.engine, "image", "inspect", f"{repository}:{tag}"]))[0]
        reference = f"{repository}:{tag}-{facts['Id'].removeprefix('sha256:')[:12]}"
        _run([self.engine, "tag", f"{repository}:{tag}", reference])
        return Built(name, reference, int(facts["Size"]))

    def push(self, built: Built) -> Built:
        """Push an image and return it with a reference by digest."""
        repository = self.repository(built.name)
        if self.engine == "podman":
            with tempfile.NamedTemporaryFile() as file:
                _run([self.engine, "push", "--digestfile", file.name, built.reference])
                digest = Path(file.name).read_text(encoding="utf-8").strip()
            return Built(built.name, f"{repository}@{digest}", built.size)
        _run([self.engine, "push", built.reference])
        facts = json.loads(_output([self.engine, "image", "inspect", built.reference]))[0]
        (reference,) = (entry for entry in facts["RepoDigests"] if entry.startswith(f"{repository}@"))
        return Built(built.name, reference, built.size)


def dockerfile_of(name: str) -> Path:
    """Return the Dockerfile that has the build target of an image.

    Raises:
        SystemExit: No Dockerfile has this target.
    """
    target = re.compile(rf"^FROM \S+ AS {re.escape(name)}$", re.MULTILINE)
    for path in sorted((ROOT / "docker").glob("*.Dockerfile")):
        if target.search(path.read_text(encoding="utf-8")):
            return path
    raise SystemExit(f"docker/*.Dockerfile: no file has the build target {name}; add it")


def locked_version(package: str, constraints: Path = ROOT / "constraints.txt") -> str:
    """Return the version of a package in constraints.txt."""
    match = re.search(rf"^{re.escape(package)}==(\S+)$", constraints.read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        raise SystemExit(f"{constraints}: no {package}")
    return match[1]


def ascend_base_image(mindspore: str, chip: str) -> str:
    """Return CANN's image for a version of MindSpore and a chip.

    Raises:
        SystemExit: It is not known which version of CANN belongs to this MindSpore, or the chip is unknown.
    """
    releases = _ASCEND["RELEASES"]
    if mindspore not in releases or chip not in CHIPS:
        pairs = (f"MindSpore {each.mindspore} with CANN {each.cann}" for each in releases.values())
        raise SystemExit(
            f"MindSpore {mindspore} (constraints.txt) on chip {chip}: no base image is known; known are "
            f"{', '.join(pairs)}, each for the chips {', '.join(CHIPS)}; choose one of them, or set BASE_IMAGE="
        )
    return str(releases[mindspore].base_image(chip))


def pip_configuration(listing: str) -> str:
    """Return a pip.conf with the settings of ``pip config list`` that a build needs; variables override files."""
    values: dict[str, str] = {}
    for line in sorted(listing.splitlines(), key=lambda text: text.startswith(":env:")):
        match = _PIP_LINE.fullmatch(line)
        if match and match["key"] in _PIP_KEYS:
            # pip prints values with the escapes of Python.
            values[match["key"]] = match["value"].encode().decode("unicode_escape")
    lines = [f"{key} = {' '.join(value.split())}" for key, value in values.items()]
    return "\n".join(["[global]", *lines]) + "\n"


@contextmanager
def secrets_of_builds() -> Iterator[list[str]]:
    """Yield the secrets for builds, pip's settings and certificates of this machine; they are not stored in layers."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(pip_configuration(listing))
        file.flush()
        secrets = [f"id=pip,src={file.name}"]
        certificates = next((os.environ[name] for name in _CERTIFICATES if os.environ.get(name)), "")
        if certificates and Path(certificates).is_file():
            secrets.append(f"id=certificates,src={certificates}")
        yield secrets


def version() -> str:
    """Return the version of the library, read from its source."""
    text = (ROOT / "kubeyolo" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if match is None:
        raise SystemExit("kubeyolo/__init__.py: no __version__")
    return match[1]


def revision() -> str:
    """Return the last commit that changed the content of the images, with ``-dirty`` for uncommitted changes."""
    log = ["git", "-C", str(ROOT), "log", "-1", "--format=%H", "--", *_CONTENT]
    status = ["git", "-C", str(ROOT), "status", "--porcelain", "--", *_CONTENT]
    try:
        return _output(log).strip() + ("-dirty" if _output(status).strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def table(images: Sequence[Built]) -> str:
    """Return a table of the images as text: unpacked sizes in millions of bytes, and references."""
    width = max(len(image.name) for image in images)
    lines = [f"{'image':<{width}}  {'MB':>6}  reference"]
    lines += [f"{image.name:<{width}}  {image.size / 1e6:>6.0f}  {image.reference}" for image in images]
    return "\n".join(lines)


def write_references(file: Path, images: Sequence[Built], made: str) -> None:
    """Write the references by name; references of images that were not built in this run stay in the file."""
    known = {}
    if file.is_file():
        known = dict(re.findall(r"^(kubeyolo-[\w-]+): (\S+)$", file.read_text(encoding="utf-8"), re.MULTILINE))
    known |= {f"kubeyolo-{image.name}": image.reference for image in images}
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{name}: {reference}" for name, reference in sorted(known.items())]
    file.write_text(
        "\n".join([f"# Images of kubeyolo {made}, made by `make images`.", *lines]) + "\n", encoding="utf-8"
    )


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, env=os.environ | {"DOCKER_BUILDKIT": "1"})


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="IMAGE",
        help=f"images to build: {', '.join(IMAGES)}; default: all, for Ascend {', '.join(DEVICE_IMAGES)}",
    )
    parser.add_argument("--engine", choices=ENGINES, default="docker")
    parser.add_argument("--registry", default="", help="host and path in front of image names; images are pushed there")
    parser.add_argument("--no-push", action="store_true", help="use the names of the registry, but do not push")
    parser.add_argument(
        "--base-image",
        default="",
        help="image with Python 3.11, for Ascend also with CANN; default: the base image in the Dockerfiles, for "
        "Ascend CANN's image for the MindSpore in constraints.txt",
    )
    parser.add_argument("--device", choices=("cpu", "ascend"), default="cpu")
    parser.add_argument("--chip", choices=CHIPS, default=CHIPS[0], help="chip of the cards, for Ascend")
    parser.add_argument("--flags", default="", help="more flags for every build, such as '--network=host'")
    parser.add_argument("--output", type=Path, default=ROOT / REFERENCES, help="file for the references")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in IMAGES]
    if unknown:
        parser.error(f"unknown image {unknown[0]!r}; there are {', '.join(IMAGES)}")
    if given.device == "ascend":
        plain = [name for name in given.names if name not in DEVICE_IMAGES]
        if plain:
            parser.error(f"the steps of image {plain[0]} have no device; build it without DEVICE=ascend")
        given.base_image = given.base_image or ascend_base_image(locked_version("mindspore"), given.chip)
    given.names = given.names or (DEVICE_IMAGES if given.device == "ascend" else IMAGES)
    if not shutil.which(given.engine):
        parser.error(f"{given.engine} is not installed; install it, or choose ENGINE=docker or ENGINE=podman")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the images, push them, write their references; return the exit code."""
    given = parse(arguments)
    builder = Builder(given.engine, given.registry, given.base_image, given.device, tuple(given.flags.split()))
    tag, commit = version(), revision()
    images = []
    if given.base_image:
        print(f"base image {given.base_image}", flush=True)
    try:
        with secrets_of_builds() as secrets:
            for name in given.names:
                built = builder.build(name, tag, commit, secrets)
                images.append(builder.push(built) if given.registry and not given.no_push else built)
    except subprocess.CalledProcessError as error:
        print(f"error: {' '.join(error.cmd[:2])} ended with {error.returncode}", file=sys.stderr)
        return 1
    write_references(given.output, images, f"{tag} at {commit}")
    print(table(images))
    print(f"references {given.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
