"""Export to MINDIR, MindSpore's own format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kubeyolo.bundle import BundleManifest
from kubeyolo.export.mindspore_export import export_cell


def export_mindir(manifest: BundleManifest, build_network: Callable[[], Any], path: Path, batch_size: int = 1) -> None:
    """Write a detector as MINDIR for ``batch_size`` images of the manifest's size; its outputs are the raw levels.

    Args:
        manifest: What the network is.
        build_network: Builds a fresh network with its weights.
        path: The file to write.
        batch_size: N, fixed: Ascend compiles a fixed shape into faster code.

    Raises:
        WorkError: MindSpore cannot export the network.
    """
    export_cell(build_network(), (batch_size, 3, *manifest.image_size), path, "MINDIR")
