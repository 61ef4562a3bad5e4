from __future__ import annotations

from pathlib import Path

import pytest

from kubeyolo.config.class_names import clean_name, clean_names
from kubeyolo.config.load import load_config, read_mapping
from kubeyolo.config.text_file import decode_text, read_text_file
from kubeyolo.errors import InputError
from kubeyolo.launch.settings import cluster_settings

TEXT = "train:\n  max_epoch: 3 # é\n"


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32"),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode("utf-8-sig"),
    ],
)
def test_text_is_read_as_editors_save_it(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "my.yaml"
    path.write_bytes(data)
    assert read_text_file(path) == TEXT
    assert load_config(file=path).train.max_epoch == 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (TEXT.encode("cp1252"), r"in line 2, at byte 18 of the line \('max_epoch: 3 # é' if it is Windows-1252\)"),
        (b"\xef\xbb\xbfa: 1\r\nb: \xe9\r\n", r"byte 0xe9 in line 2, at byte 4 of the line"),
        (b"a: \x81\n", r"byte 0x81 in line 1, at byte 4 of the line; save it as UTF-8"),
        (TEXT.encode("utf-16-le"), "UTF-16 text without its byte order mark; save it as UTF-8"),
        (TEXT.encode("utf-16")[:-1], "starts with the byte order mark of UTF-16, but is not UTF-16"),
        (b"\x89PNG\r\n\x1a\n\0\0", "not text: it is a PNG image"),
        (b"a\nb\0c", "not text: it is a file with zero bytes, the first in line 2"),
        (b"PK\x03\x04\x14\0\x80\xff", "not text: it is a ZIP archive"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
    ],
)
def test_other_bytes_are_refused_with_their_place(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "my.yaml"
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"configuration \S+my\.yaml: .*{message}") as error:
        read_mapping(path)
    assert "\n" not in str(error.value)


def test_a_file_of_settings_of_the_cluster_is_read_by_the_same_rules(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_bytes(b"\xef\xbb\xbfpreset: cpu\r\nqueue: training\r\n")
    assert cluster_settings(file=path)[1]["train"].queue == "training"
    path.write_bytes("queue: é\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"cluster settings \S+cluster\.yaml: not UTF-8 text: byte 0xe9 in line 1"):
        cluster_settings(file=path)


def test_text_that_looks_like_other_files_stays_text() -> None:
    assert decode_text(b"BMW\nAudi\n", "cars") == "BMW\nAudi\n"
    assert decode_text(b"", "nothing") == ""


def test_names_are_compared_without_what_nobody_sees() -> None:
    assert clean_name("\ufeff  cafe\u0301\u200b\t") == "café"
    assert clean_names(("\ufeffa", "café ")) == clean_names(("a", "cafe\u0301"))
    assert clean_names(("A",)) != clean_names(("a",))
