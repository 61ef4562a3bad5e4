"""The zip archives that PyTorch writes: a pickle, and one entry for each storage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kubeyolo.errors import InputError
from kubeyolo.weights.stored_array import Content, DeflatedContent
from kubeyolo.zip_members import DamagedArchive, Member, inflated, read_members

MAX_PICKLE = 16 << 20
"""Largest pickle in bytes; the pickle of the largest detector has less than one million bytes."""

MAX_INFLATED = 2 << 30
"""Largest total size in bytes of all compressed entries after decompression. PyTorch itself does not compress."""

_BYTE_ORDER_BYTES = 1 << 10


@dataclass(frozen=True)
class TorchArchive:
    """The checked entries of an archive, without their common first folder."""

    path: Path
    entries: dict[str, Content | DeflatedContent]

    def pickle(self) -> bytes:
        """Return the bytes of the pickle.

        Raises:
            InputError: There is no pickle, or it is too large.
        """
        if "data.pkl" not in self.entries:
            raise InputError(
                f"{self.path}: a zip archive without data.pkl, not a PyTorch checkpoint; give a different file"
            )
        content = self.entries["data.pkl"]
        if content.length > MAX_PICKLE:
            raise InputError(
                f"{self.path}: data.pkl has {content.length} bytes, at most {MAX_PICKLE} are allowed; "
                "save only the model's state_dict()"
            )
        return content.read(0, content.length)

    def storage(self, key: str) -> Content | DeflatedContent | None:
        """Return the bytes of a storage, or None if the archive does not contain it."""
        return self.entries.get(f"data/{key}")


def open_archive(path: Path) -> TorchArchive:
    """Open a checkpoint in PyTorch's zip format, and check the position, the size and the checksum of each entry.

    Raises:
        InputError: It is not such an archive; an entry has a path outside the archive, is outside the file, overlaps
            another entry, has a wrong checksum, is encrypted, or is compressed more than weights can be.
    """
    try:
        members = read_members(path, MAX_INFLATED)
        with path.open("rb") as file:
            for member in members:
                for _ in inflated(file, member):
                    pass
    except (DamagedArchive, OSError) as error:
        raise InputError(f"{path}: the archive is damaged ({error}); get the file again") from error
    entries = {member.name: _content(path, member) for member in members}
    root = _root(path, entries)
    content = {name.removeprefix(root): entry for name, entry in entries.items()}
    _check_kind(path, content)
    return TorchArchive(path, content)


def _content(path: Path, member: Member) -> Content | DeflatedContent:
    if member.is_deflated:
        return DeflatedContent(path, member)
    return Content(path, ((member.start, member.size),))


def _root(path: Path, entries: dict[str, Content | DeflatedContent]) -> str:
    pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) > 1:
        raise InputError(f"{path}: has {len(pickles)} pickles, a checkpoint has one; give a different file")
    return pickles[0].removesuffix("data.pkl") if pickles else ""


def _check_kind(path: Path, entries: dict[str, Content | DeflatedContent]) -> None:
    if "constants.pkl" in entries:
        raise InputError(f"{path}: is a TorchScript program, not a checkpoint; give the checkpoint it was made from")
    order = entries.get("byteorder")
    if order is not None and order.length < _BYTE_ORDER_BYTES and order.read(0, order.length).strip() != b"little":
        raise InputError(f"{path}: was written on a big-endian machine; save it again on a little-endian machine")
