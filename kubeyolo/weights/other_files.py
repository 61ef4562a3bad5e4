"""Refuses files that are given as weights by mistake; the message names their kind and the remedy."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path, PurePosixPath

from kubeyolo.bundle import MANIFEST_NAME
from kubeyolo.errors import InputError, one_line
from kubeyolo.file_kinds import kind_of
from kubeyolo.zip_members import DamagedArchive, TooManyMembers, member_names

HEAD = 1024
"""Bytes that are read from the start of a file."""

_OURS = (".weights", ".pt", ".pth", ".ckpt", ".safetensors")
_MOST_NAMES = 4
_MOST_MEMBERS = 100
_ADDRESS = re.compile(r"(https?|ftp|s3|gs|minio|hf|file):/")
_LFS_SIZE = re.compile(rb"^size (\d+)\r?$", re.MULTILINE)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_PYTORCH_BEFORE_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
# The remedy by words in the kind of the file.
_REMEDIES = (
    ("pointer of git-lfs", "run 'git lfs pull' in its repository, or download the file itself"),
    ("pointer of git-annex", "run 'git annex get' on it, or download the file itself"),
    ("pointer of DVC", "run 'dvc pull' in its repository, or download the file itself"),
    ("web page", "open the address in a browser and download the file itself"),
    ("archive", "unpack it and give the file of weights in it"),
    ("HDF5", "Keras models cannot be imported; give a .pt, .weights, .ckpt or .safetensors file"),
    ("network", "a network exported for a runtime cannot be imported; give the checkpoint it was exported from"),
    ("engine", "a network exported for a runtime cannot be imported; give the checkpoint it was exported from"),
    ("AppleDouble", "give the file of the same name without '._'"),
)
_OTHERWISE = f"give a file of weights ({', '.join(_OURS)})"


def read_head(path: Path) -> bytes:
    """Return the first bytes of a file.

    Raises:
        InputError: It does not exist, or is empty, a folder, a dead link, or an address; the message names the reason.
    """
    try:
        if not path.is_dir() and path.exists() and not path.is_file():
            # Reading a pipe or a device may never end.
            raise InputError(f"{path}: is not a regular file; {_OTHERWISE}")
        with path.open("rb") as file:
            head = file.read(HEAD)
    except IsADirectoryError as error:
        raise InputError(f"{path}: cannot be read: is {_folder(path)}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {_absent(path) or error.strerror}") from error
    if not head:
        raise InputError(f"{path}: is empty (0 bytes), perhaps because a download failed; get the file again")
    return head


def is_torch_archive(path: Path) -> bool:
    """Tell whether a file that starts like a ZIP archive is a PyTorch checkpoint.

    Raises:
        InputError: The archive is cut off, or is not a checkpoint; the message names its content.
    """
    try:
        names = member_names(path)
    except TooManyMembers as error:
        raise InputError(f"{path}: is an archive with too many entries ({error}); {_OTHERWISE}") from error
    except (DamagedArchive, OSError) as error:
        raise InputError(f"{path}: {_cut_archive(path)}; get the file again") from error
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return True
    raise InputError(f"{path}: is {_archive_of(names)}")


def refuse_other(path: Path, head: bytes) -> None:
    """Refuse a file whose first bytes show that it does not contain weights.

    Args:
        path: The file.
        head: Its first bytes, at most :data:`HEAD`.

    Raises:
        InputError: The file does not contain weights; the message names its kind and the remedy.
    """
    if head.startswith(_PYTORCH_BEFORE_1_6):
        raise InputError(
            f"{path}: is a PyTorch checkpoint from before version 1.6, which is not in PyTorch's zip format; load it "
            "with PyTorch and save it again with torch.save()"
        )
    if _PICKLE.match(head):
        raise InputError(
            f"{path}: is a Python pickle, not in PyTorch's zip format; load it with the program that wrote it, and "
            "save its state_dict() with torch.save()"
        )
    kind = kind_of(head) or ("a tar archive" if _is_old_tar(path, head) else None) or _text_kind(head)
    if kind is None:
        return
    size = _LFS_SIZE.search(head) if "git-lfs" in kind else None
    about = f" (the file has {size[1].decode()} bytes)" if size else ""
    if kind == "a tar archive":
        about = _members_of_tar(path)
    remedy = next((remedy for word, remedy in _REMEDIES if word in kind), _OTHERWISE)
    raise InputError(f"{path}: is {kind}{about}; {remedy}")


def _absent(path: Path) -> str | None:
    """Return why a file does not exist, if it is a dead link or an address; else None."""
    if path.is_symlink() and not path.exists():
        target = str(path.readlink())
        if "annex/objects" in target:
            return "is a link of git-annex whose content is missing; run 'git annex get' on it"
        return f"is a link to {target}, which does not exist; give the file itself"
    if _ADDRESS.match(str(path)):
        return "is an address; download the file, and give its path"
    return None


def _folder(path: Path) -> str:
    if (path / MANIFEST_NAME).is_file():
        return "a bundle already; it does not need to be imported"
    if (path / "data.pkl").is_file():
        return "a folder with the content of a PyTorch checkpoint; give the .pt file that it was unpacked from"
    if (path / "saved_model.pb").is_file():
        return "a TensorFlow SavedModel; give a .pt, .weights, .ckpt or .safetensors file"
    found = sorted(each for suffix in _OURS for depth in ("*", "*/*") for each in path.glob(f"{depth}{suffix}"))
    if found:
        shown = [str(each.relative_to(path)) for each in found]
        return f"a folder with {_listed(shown)}; give one of them"
    return "a folder; give a file of weights"


def _cut_archive(path: Path) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD)
    is_torch = b"data.pkl" in head[30:300]
    return (
        f"is cut off: it starts like {'a PyTorch checkpoint' if is_torch else 'a ZIP archive'}, and its end is missing "
        f"(the file has {size} bytes)"
    )


def _archive_of(names: list[str]) -> str:
    """Return the kind of a ZIP archive, recognized from the names in it, and the remedy."""
    files = [name for name in names if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if files and all(name.endswith(".npy") for name in files):
        return f"an archive of NumPy arrays (.npz); {_OTHERWISE}"
    if "model.weights.h5" in files or "[Content_Types].xml" in files:
        kind = "a Keras model" if "model.weights.h5" in files else "an Office document"
        return f"{kind}; {_OTHERWISE}"
    inside = [name for name in files if PurePosixPath(name).suffix.lower() in _OURS]
    if inside:
        file = "one of the files" if inside[1:] else "the file"
        return f"a ZIP archive with {_listed(inside)}; unpack it and give {file}"
    if not files:
        return "an empty ZIP archive; get the file again"
    return f"a ZIP archive with {_listed(files)}, not a PyTorch checkpoint; {_OTHERWISE}"


def _members_of_tar(path: Path) -> str:
    names: list[str] = []
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                names.append(member.name)
                if len(names) >= _MOST_MEMBERS:
                    break
    except (tarfile.TarError, OSError, ValueError):
        pass
    return f" with {_listed(names)}" if names else ""


def _is_old_tar(path: Path, head: bytes) -> bool:
    """Tell whether a file is a tar archive of the old format, which has a checksum and no magic bytes."""
    if len(head) < 512 or head[:1] == b"\0" or not re.fullmatch(rb"[0-7 ]{1,7}\0? ?", head[148:156].strip(b"\0 ")):
        return False
    return tarfile.is_tarfile(path)


def _text_kind(head: bytes) -> str | None:
    """Return the kind of a text, or None for bytes that are not text."""
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if len(head) < HEAD or error.start < len(head) - 3:
            return None
        text = head[: error.start].decode("utf-8-sig")
    if _CONTROL.search(text):
        return None
    if re.match(r"(\s*#[^\n]*\n)*\s*\[(net|network)\]", text):
        return "a cfg file of darknet, which does not contain weights"
    return f"text that starts with {one_line(text, 40)!r}"


def _listed(names: list[str]) -> str:
    shown = ", ".join(one_line(name, 60) for name in names[:_MOST_NAMES])
    return f"{shown} and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else shown
