"""Work in a process of its own, so that what it takes of memory is known, and given back."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def peak_memory() -> int:
    """Return the largest number of bytes that this process has had in memory."""
    # Not getrusage: its peak begins with that of the process that started this one.
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def run_alone(code: str, *arguments: object) -> str:
    """Run Python code with arguments and return the last line it prints; what it cannot do fails the test."""
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, f"ended with {run.returncode}: {run.stdout[-2000:]}{run.stderr[-4000:]}"
    print(run.stdout)
    return run.stdout.splitlines()[-1]
