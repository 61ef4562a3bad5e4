"""LabelMe: a JSON file next to each image."""

from __future__ import annotations

from kubeyolo.data.layouts.paired import PairedFormat, find_pairs, unlabelled_val
from kubeyolo.data.layouts.tree import Tree
from kubeyolo.data.layouts.types import Candidate, LayoutProblem, settle

LABELS = PairedFormat("json", frozenset())


def find_labelme(tree: Tree) -> Candidate | None:
    """Return the LabelMe data set that the files make, what is wrong with it, or None where none looks like it."""
    try:
        pairs = find_pairs(tree, LABELS)
        if not pairs:
            return None
        return settle("labelme", "LabelMe", pairs.splits, pairs.single, (), unlabelled_val(tree, pairs.splits))
    except LayoutProblem as problem:
        return Candidate("labelme", problem=str(problem))
