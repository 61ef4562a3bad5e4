from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kubeyolo.errors import InputError
from kubeyolo.weights.importing import import_weights
from kubeyolo.weights.weights_file import format_of
from tests.weights.arrays_of_yolov5n import MODEL, upstream_arrays
from tests.weights.torch_writer import TorchFile, ordered

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4f" * 32 + b"\nsize 4062133\n"


def checkpoint(path: Path) -> Path:
    file = TorchFile()
    return file.write(path, ordered({name: file.tensor(array) for name, array in upstream_arrays().items()}))


def archive(names: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as written:
        for name, content in names.items():
            written.writestr(name, content)
    return file.getvalue()


def tar(names: list[str], form: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as written:
        for name in names:
            written.addfile(tarfile.TarInfo(name))
    return file.getvalue()


def old_tar(name: str) -> bytes:
    data = bytearray(tar([name], tarfile.USTAR_FORMAT))
    data[257:265] = bytes(8)
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


def engine() -> bytes:
    about = json.dumps({"description": "Ultralytics YOLOv8n model", "author": "Ultralytics"}).encode()
    return struct.pack("<i", len(about)) + about + b"ftrt"


@pytest.mark.parametrize("name", ["a.pt", "a.weights", "a.ckpt", "a.safetensors", "weights", "a.PT"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (LFS, ["pointer of git-lfs", "4062133 bytes", "git lfs pull"]),
        (b"\xef\xbb\xbf" + LFS.replace(b"\n", b"\r\n"), ["pointer of git-lfs", "4062133 bytes"]),
        (b"/annex/objects/SHA256E-s4062133--4f.pt\n", ["pointer of git-annex", "git annex get"]),
        (b"outs:\n- md5: 4f\n  size: 4\n  path: a.pt\n", ["pointer of DVC", "dvc pull"]),
        (b"<!DOCTYPE html><html><body>Download anyway</body></html>", ["web page", "download the file itself"]),
        (b"", ["is empty (0 bytes)", "get the file again"]),
        (gzip.compress(b"weights"), ["a gzip archive", "unpack it"]),
        (archive({"yolov5n.pt": b"x", "__MACOSX/._yolov5n.pt": b"x"}), ["ZIP archive with yolov5n.pt;", "unpack"]),
        (archive({"readme": b"", "a/": b""}), ["ZIP archive with readme, not a PyTorch checkpoint"]),
        (archive({"w.npy": b"x"}), ["NumPy arrays (.npz)"]),
        (archive({"x.pt": bytes(99)})[:60], ["cut off", "like a ZIP archive", "60 bytes"]),
        (tar(["run/best.pt", "run/opt.yaml"], tarfile.GNU_FORMAT), ["tar archive with run/best.pt, run/opt.yaml;"]),
        (old_tar("best.pt"), ["tar archive with best.pt;"]),
        (b"\x08\x08\x12\x07pytorch\x1a\x052.3.0:", ["an ONNX network", "checkpoint it was exported from"]),
        (b"\x1c\0\0\0TFL3" + bytes(24), ["a TensorFlow Lite network", "checkpoint it was exported from"]),
        (b"\x89HDF\r\n\x1a\n" + bytes(24), ["an HDF5 file", "Keras models cannot be imported"]),
        (b"ftrt" + bytes(24), ["a TensorRT engine"]),
        (engine(), ["a TensorRT engine"]),
        (b"\x0a\x050.1.1\x12\x09MindSpore", ["a MindIR network"]),
        (b'<?xml version="1.0"?>\n<net name="main" version="11">\n', ["an OpenVINO network"]),
        (b"\xff\xd8\xff\xe0", ["a JPEG image", "give a file of weights"]),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", ["PyTorch checkpoint from before version 1.6", "torch.save()"]),
        (b"\x80\x04\x95\x10\0", ["a Python pickle"]),
        (b"# yolov3\n[net]\nbatch=64\n", ["a cfg file of darknet, which does not contain weights"]),
        ("nc: 80 # classes é\n".encode(), ["text that starts with 'nc: 80 # classes é'"]),
    ],
    # Never the content: archives hold the time at which they were made.
    ids=lambda value: value[0] if isinstance(value, list) else "file",
)
def test_a_file_is_named_as_what_it_is_whatever_its_ending(
    tmp_path: Path, name: str, content: bytes, words: list[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        format_of(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize("name", ["last.ckpt", "best.pth.tar", "weights", "BEST.PT", "a.weights", "a.safetensors"])
def test_a_checkpoint_is_read_by_its_content(tmp_path: Path, name: str) -> None:
    imported = import_weights(checkpoint(tmp_path / name), MODEL, str(tmp_path / "bundle"))
    assert (imported.format, imported.layout, imported.arrays) == ("torch", "yolov5", len(upstream_arrays()))


@pytest.mark.parametrize(
    ("head", "size", "format"),
    [
        (struct.pack("<3iq", 0, 2, 5, 0), 20, "darknet"),
        (struct.pack("<3ii", 0, 1, 0, 0), 16, "darknet"),
        (b"\x0a\x80\x02\x0a\x04name", 9, "mindspore"),
        (struct.pack("<Q", 40) + b'{"w":{"dtype":"F32"', 27, "safetensors"),
    ],
)
@pytest.mark.parametrize("name", ["darknet53.conv.74", "a.pt", "a.ckpt", "a.weights", "weights"])
def test_formats_are_told_by_content(tmp_path: Path, name: str, head: bytes, size: int, format: str) -> None:  # noqa: A002
    (tmp_path / name).write_bytes(head)
    assert len(head) >= size
    assert format_of(tmp_path / name) == format


def test_half_a_checkpoint_is_cut_off(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "half.pt")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=rf"cut off: it starts like a PyTorch checkpoint.*{len(data) // 2} bytes"):
        format_of(path)


def test_folders_say_what_they_hold(tmp_path: Path) -> None:
    run = tmp_path / "exp"
    (run / "weights").mkdir(parents=True)
    for name in ("best.pt", "last.pt"):
        (run / "weights" / name).write_bytes(b"x")
    with pytest.raises(InputError, match=r"a folder with weights/best\.pt, weights/last\.pt; give one of them"):
        format_of(run)
    bundle = import_weights(checkpoint(tmp_path / "a.pt"), MODEL, str(tmp_path / "bundle")).bundle
    with pytest.raises(InputError, match="a bundle already"):
        format_of(Path(bundle.removeprefix("file://")))


def test_dead_links_and_addresses_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.pt").symlink_to(".git/annex/objects/Xk/a.pt")
    (tmp_path / "b.pt").symlink_to("elsewhere.pt")
    for path, words in (
        (tmp_path / "a.pt", "git annex get"),
        (tmp_path / "b.pt", "is a link to elsewhere.pt, which does not exist"),
        (Path("https://example.com/yolov5n.pt"), "is an address; download the file"),
        (tmp_path / "absent.pt", "No such file"),
    ):
        with pytest.raises(InputError, match=words):
            format_of(path)


def test_what_safetensors_lacks_at_the_end_is_said(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"w": np.zeros(100, np.float32)}, tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.pt").write_bytes(data[:-40])
    with pytest.raises(
        InputError, match=rf"arrays end at byte {len(data)}, the file at {len(data) - 40}: it is cut off"
    ):
        import_weights(tmp_path / "a.pt", MODEL, str(tmp_path / "bundle"))
