"""A folder in which whole pipelines run by the command line, and what their words say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.data.sample import generate_sample_dataset
from tests.connections import outside_ci, traced

STEPS = CompiledPipeline.named().tasks
CACHED = sorted({*STEPS} - {"configure"})
"""The steps whose results may come from the cache."""

SETTINGS = """
train:
  image_size: 64
  per_batch_size: 4
  max_epoch: 2
  warmup_steps: 2
  log_interval: 2
data.workers: 0
pretrain:
  max_steps: 3
  per_batch_size: 4
export.parity_images: 2
quantize:
  calibration_images: 4
  max_drop: 100
"""


class WorkFolder:
    """A folder with a data set, a configuration of a model, a store and runs."""

    def __init__(self, folder: Path, model: str) -> None:
        self.folder = folder
        self.data = generate_sample_dataset(folder / "shapes", train=12, val=6)
        (folder / "tiny.yaml").write_text(f"model: {model}{SETTINGS}")

    def kubeyolo(self, *arguments: str, trace: bool = False) -> subprocess.CompletedProcess[str]:
        """Call the command line in a process of its own, with its caches in this folder; may list its connections."""
        environment = outside_ci(self.home) if trace else {**os.environ}
        environment["KUBEYOLO_CACHE"] = str(self.folder / "cache")
        command = [sys.executable, "-m", "kubeyolo.cli.app", *arguments]
        command = traced(command, self.trace) if trace else command
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=800)

    def run(self, *arguments: str, trace: bool = False) -> subprocess.CompletedProcess[str]:
        return self.kubeyolo("run", "--config", "tiny.yaml", "--data", "shapes", *arguments, trace=trace)

    @property
    def trace(self) -> Path:
        return self.folder / "connections.trace"

    @property
    def home(self) -> Path:
        """The home folder of the run whose connections are listed."""
        return self.folder / "home"

    @property
    def latest(self) -> Path:
        return self.folder / "runs" / "latest"


def from_the_cache(said: str) -> list[str]:
    return sorted(re.findall(r"• (\w+) from the cache", said))


def started(said: str) -> list[str]:
    return re.findall(r"▶ (\w+)", said)
