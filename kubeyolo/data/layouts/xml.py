"""Recognizes layouts of Pascal VOC (an XML file for each image) and CVAT for images (one XML file for all images)."""

from __future__ import annotations

from kubeyolo.data.layouts.names import split_of
from kubeyolo.data.layouts.paired import PairedFormat, find_pairs, unlabelled_val, with_members
from kubeyolo.data.layouts.tree import Tree, join
from kubeyolo.data.layouts.types import Layout, LayoutProblem, SplitFiles, make_layout

LABELS = PairedFormat(
    "xml",
    frozenset({"annotations", "annotation", "anns", "xml", "xmls", "labels", "label"}),
    frozenset({"annotations"}),
)
_LIST_FOLDERS = ("imagesets/main", "imagesets")
_CVAT = "CVAT for images"


def find_voc(tree: Tree) -> Layout | None:
    """Return the layout of a Pascal VOC data set, or None if no file looks like Pascal VOC."""
    pairs = find_pairs(tree, LABELS)
    lists = _lists(tree) if pairs else {}
    whole = lists.pop("trainval", None) or lists.pop("", None)
    splits, single = pairs.splits, pairs.single
    if single is not None and ("train" in lists or "val" in lists):
        splits = with_members(pairs, lists, tree)
    elif single is not None and whole is not None and not splits:
        splits = with_members(pairs, {"train": whole, **lists}, tree)
    single = None if splits else single
    members = tuple(member for files in splits.values() for member in files.members)
    return make_layout("voc", "Pascal VOC", splits, single, members, unlabelled_val(tree, splits))


def _lists(tree: Tree) -> dict[str, str]:
    """Return the lists of images by split; the key may also be ``trainval``, or '' for all images (CVAT's default)."""
    folders = {path.lower(): path for path in tree.folders}
    for name in _LIST_FOLDERS:
        folder = folders.get(name)
        stems = sorted(tree.folders[folder].stems.get("txt", ())) if folder is not None else []
        lists: dict[str, str] = {}
        for stem in stems:
            # Lists for single classes (aeroplane_train.txt) are not splits.
            word = stem.lower()
            split = {"trainval": "trainval", "default": ""}.get(word, split_of(stem))
            if not split and word != "default":
                continue
            if split in lists:
                raise LayoutProblem(f"{lists[split]} and {folder}/{stem}.txt both list {split!r}; remove one list")
            lists[split] = f"{folder}/{stem}.txt"
        if lists:
            return lists
    return {}


def find_cvat(tree: Tree) -> Layout | None:
    """Return the layout of a data set in CVAT's XML, or None if no file looks like CVAT's XML."""
    splits: dict[str, SplitFiles] = {}
    single = None
    for path in tree.files["xml"]:
        folder, _, name = path.rpartition("/")
        if name.lower() != "annotations.xml" or (folder and ("/" in folder or not split_of(folder))):
            continue
        images = tree.image_folder(folder)
        if images is None:
            images = folder if tree.has_images(folder) else tree.common_image_folder(folder)
        if not tree.images(images):
            raise LayoutProblem(f"{path} is CVAT's XML, but there are no images; export the data set with images")
        if folder:
            splits[split_of(folder)] = SplitFiles(path, images)
            continue
        subsets = {split_of(child): child for child in tree.children(images)}
        subsets = {split: child for split, child in subsets.items() if split and tree.images(child)}
        if "train" in subsets and "val" in subsets:
            splits |= {split: SplitFiles(path, child) for split, child in subsets.items()}
        else:
            inside = join(images, "default")
            single = SplitFiles(path, inside if inside in tree and not tree.has_images(images) else images)
    return make_layout("cvat", _CVAT, splits, single, (), unlabelled_val(tree, splits))
