"""Texts of data on a terminal: control characters are numbers, one line, no markup; names are safe or refused."""

from __future__ import annotations

import io
import json
import os
import pty
from pathlib import Path

import pytest
from rich.table import Table

from kubeyolo.config.class_names import clean_name
from kubeyolo.consoles import SafeConsole
from kubeyolo.errors import LONGEST_MESSAGE, InputError, message_line, one_line
from kubeyolo.names import LONGEST_CLASS, check_name, class_name, name_fault
from kubeyolo.output_streams import SafeText, text_stream
from kubeyolo.printable import escaped, escaped_but_colors, escaped_name

HOSTILE = "\x1b[2J\x1b]0;title\x07 a\x9bb \u202egnp.exe \u2066x\u2069 \u200b\u2028"


def test_control_and_direction_characters_become_their_numbers() -> None:
    assert escaped("\x1b[31m\x07\x7f\x9b\u202e\u2066\u200e") == "\\x1b[31m\\x07\\u007f\\u009b\\u202e\\u2066\\u200e"
    assert escaped("a\tb\n") == "a\tb\n"
    assert escaped_name("a\tb\nc\ud800") == "a\\tb\\nc\\ud800"
    assert escaped("细胞 é 😀 क्ष") == "细胞 é 😀 क्ष"


def test_json_stays_json() -> None:
    document = json.dumps({"name": HOSTILE}, ensure_ascii=False)
    assert json.loads(escaped(document)) == {"name": HOSTILE}


def test_a_message_is_one_line_of_bounded_length() -> None:
    assert one_line("a\nb\x1b[2J\u202e") == "a b\\x1b[2J\\u202e"
    message = message_line(f"file: {'x' * 100_000}; remove it")
    assert message.startswith("file: xxx") and message.endswith("x; remove it")
    assert len(message) <= LONGEST_MESSAGE + 3


def test_a_stream_escapes_what_is_printed(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file:
        stream = text_stream(file.fileno(), "standard output", None)
        print(HOSTILE, "\x1b[31mred\x1b[0m", file=stream, flush=True)
        stream.detach()
    text = (tmp_path / "out").read_text()
    assert text.rstrip("\n").isprintable() and "\\x1b[31mred" in text


def test_a_terminal_gets_colours_and_nothing_else() -> None:
    assert escaped_but_colors("\x1b[1;31mred\x1b[0m\x1b[2J") == "\x1b[1;31mred\x1b[0m\\x1b[2J"
    terminal, end = pty.openpty()
    try:
        stream = text_stream(end, "standard output", None)
        print("\x1b[32m[bold]\x1b[0m\x1b]0;x\x07", file=stream)
        console = SafeConsole(stream, force_terminal=True, color_system="standard")
        console.print("[red]a\x1b[2J", style="bold")
        stream.flush()
        written = ""
        while written.count("\n") < 2:
            written += os.read(terminal, 1000).decode()
    finally:
        stream.detach()
        os.close(terminal)
        os.close(end)
    assert "\x1b[32m[bold]\x1b[0m\\x1b]0;x\\x07" in written
    assert "\x1b[1m[red]a\\x1b[2J\x1b[0m" in written


def test_a_console_reads_no_markup_and_no_emoji_codes_in_texts() -> None:
    stream = io.StringIO()
    table = Table("name of a class", title="[bold]title")
    table.add_row("[/red] :smile: \x1b")
    SafeConsole(stream, width=80).print(table, "[/x]")
    text = stream.getvalue()
    assert "[bold]title" in text and "[/red] :smile: \\x1b" in text and "[/x]" in text and "\x1b" not in text


def test_a_stream_keeps_its_encoding_and_counts_characters(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file:
        stream = text_stream(file.fileno(), "standard output", None)
        assert isinstance(stream, SafeText) and stream.write("é\x1b") == 2
        stream.detach()


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("..", "is a path"),
        ("a/b", "is a path"),
        ("a\\b", "is a path"),
        ("a\x1b[2J", "control"),
        ("a\u202eb", "marks of direction"),
        ("a\nb", "control"),
        ("x" * 101, "101 characters"),
    ],
)
def test_names_that_are_refused(name: str, fault: str) -> None:
    assert fault in name_fault(name)
    with pytest.raises(InputError) as refused:
        check_name(name, "the split")
    message = str(refused.value)
    assert message.startswith("the split '") and message.endswith("choose another name") and message.isprintable()


@pytest.mark.parametrize("name", ["train", "val-2", "细胞", "a b", "x" * 100, "..."])
def test_names_that_are_used(name: str) -> None:
    assert check_name(name, "the split") == name


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("cell", "cell"),
        ("[bold] a <b>", "[bold] a <b>"),
        ("a\nb\tc", "a b c"),
        ("a\x1b[2J", "a\\x1b[2J"),
        ("\u202ecell", "\\u202ecell"),
        ("x" * 5000, "x" * (LONGEST_CLASS - 1) + "…"),
        ("e\u0301", "é"),
    ],
)
def test_names_of_classes_are_made_printable_and_then_stay(name: str, safe: str) -> None:
    assert clean_name(name) == safe
    assert clean_name(safe) == class_name(safe) == safe
