"""A stored data set with some of its classes: the boxes of the other classes are left out, the images stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kubeyolo.config.class_names import clean_name, clean_names
from kubeyolo.data.dataset import Dataset, Split
from kubeyolo.data.index import SplitIndex
from kubeyolo.errors import InputError, suggest


@dataclass(frozen=True)
class ClassSubset(Dataset):
    """A data set with some of the classes of another one, which keep their category ids.

    Attributes:
        whole: The data set with all classes.
        kept: Numbers of the classes in the data set with all classes.
    """

    whole: Dataset
    kept: tuple[int, ...]

    def split(self, name: str) -> Split:
        """Open a split with the boxes of the kept classes; see :meth:`kubeyolo.data.dataset.Dataset.split`."""
        split = self.whole.split(name)
        return split.with_index(self._of_kept(split.index))

    def index(self, name: str) -> SplitIndex:
        """Return the images and the boxes of the kept classes of a split."""
        return self._of_kept(self.whole.index(name))

    def _of_kept(self, index: SplitIndex) -> SplitIndex:
        number = np.full(len(self.whole.classes), -1, np.int32)
        number[list(self.kept)] = np.arange(len(self.kept), dtype=np.int32)
        classes = number[index.box_class]
        kept = classes >= 0
        counts = np.bincount(index.box_image()[kept], minlength=len(index))
        return replace(
            index,
            box_start=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            box_id=index.box_id[kept],
            box_class=classes[kept],
            box_xywh=index.box_xywh[kept],
            box_area=index.box_area[kept],
            box_crowd=index.box_crowd[kept],
        )


def of_classes(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """Return a data set with the named classes in the data set's order; with all classes if no name is given.

    Raises:
        InputError: The data set has no class of a name.
    """
    manifest = dataset.manifest
    classes = clean_names(manifest.classes)
    wanted = {clean_name(name) for name in names}
    for name in clean_names(names):
        if name not in classes:
            raise InputError(
                f"evaluate.classes: data set {manifest.name!r} has no class {name!r}{suggest(name, classes)}"
            )
    kept = tuple(number for number, name in enumerate(classes) if name in wanted)
    if not names or len(kept) == len(classes):
        return dataset
    keys = manifest.category_keys
    chosen = manifest.model_copy(
        update={
            "classes": tuple(manifest.classes[number] for number in kept),
            "category_ids": tuple(manifest.category_ids[number] for number in kept),
            "category_keys": None if keys is None else tuple(keys[number] for number in kept),
        }
    )
    return ClassSubset(chosen, dataset.place, dataset.cache, dataset, kept)
