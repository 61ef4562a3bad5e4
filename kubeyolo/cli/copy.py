"""``kubeyolo copy``: folders into an object store, and back."""

from __future__ import annotations

from typing import Annotated

import typer


def copy(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Folder, or URI of one in a store.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Folder or URI to write to.")],
) -> None:
    """Copy a folder into an object store, such as a data set that a cluster is to see, or out of it.

    Files that are there under the same name are replaced, others stay.

    [bold]Examples[/bold]

      kubeyolo copy data/bccd minio://data/bccd

      kubeyolo copy minio://kubeyolo/models/yolov5n-r7/1.0.0 bundle
    """
    from kubeyolo import bundle
    from kubeyolo.data import manifest
    from kubeyolo.storage.copy import copy_tree

    count, size = copy_tree(source, target, last=(bundle.MANIFEST_NAME, manifest.MANIFEST_NAME))
    print(f"{count} files, {size / 1e6:.1f} MB: {target}")
