"""``kubeyolo copy``: folders and files into an object store, and back."""

from __future__ import annotations

from typing import Annotated

import typer


def copy(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Folder or file, or URI of one in a store.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Folder, file or URI to write to.")],
) -> None:
    """Copy a folder into an object store, such as a data set that a cluster is to see, or out of it; or one file.

    Files that are there under the same name are replaced, others stay. The target of a file is a file, which is
    replaced at once.

    [bold]Examples[/bold]

      kubeyolo copy data/bccd minio://kubeyolo/data/bccd

      kubeyolo copy latest.json minio://kubeyolo/data/latest.json

      kubeyolo copy minio://kubeyolo/models/yolov5n-r7/1.0.0 bundle
    """
    from kubeyolo import bundle
    from kubeyolo.data import manifest
    from kubeyolo.storage.copy import copy_file, copy_tree, is_file

    if is_file(source):
        count, size = copy_file(source, target)
    else:
        count, size = copy_tree(source, target, last=(bundle.MANIFEST_NAME, manifest.MANIFEST_NAME))
    print(f"{count} file{'' if count == 1 else 's'}, {size / 1e6:.1f} MB: {target}")
