"""Watches a Python process of the tests: connections and files that are written outside of the folders of the tests.

Python imports this module at its start, because the tests put this folder on PYTHONPATH. It writes a line for each
finding into the report that the environment names, and never stops what it watches.
"""

import os
import sys

REPORT = "KUBEYOLO_TEST_STRAYS"
"""Environment variable with the file that receives the findings."""

FOLDERS = "KUBEYOLO_TEST_FOLDERS"
"""Environment variable with the folders in which anything may be written, with ``:`` between them."""

EXPECTED = "KUBEYOLO_TEST_STRAYS_EXPECTED"
"""Environment variable that is set while a test runs that strays on purpose."""

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {
    "os.mkdir": (0, 2),
    "os.rename": (1, 3),
    "os.link": (1, 3),
    "os.symlink": (1, 2),
    "os.truncate": (0, None),
    "os.remove": (0, 1),
    "os.rmdir": (0, 1),
}
"""Positions of the changed path and of its ``dir_fd`` among the arguments of an event."""

_CONNECTS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_HERE = ("127.", "::ffff:127.")


def is_loopback(address: object) -> bool:
    """Tell whether an address of a socket is on this machine: loopback, a Unix socket, or netlink."""
    if not isinstance(address, tuple) or not isinstance(address[0], str):
        return True
    return address[0] in ("", "0.0.0.0", "::", "::1", "localhost") or address[0].startswith(_HERE)


def report(text: str) -> None:
    """Append a line with the current test to the report."""
    if os.environ.get(EXPECTED):
        return
    line = f"{os.environ.get('PYTEST_CURRENT_TEST', 'between tests')}: {text}\n"
    try:
        file = os.open(os.environ[REPORT], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    except (OSError, KeyError):
        return
    os.write(file, line.encode(errors="backslashreplace"))
    os.close(file)


def watch(folders: "tuple[str, ...]") -> None:
    """Report what this process does outside of the folders, and connections that are not loopback."""

    def check(path: object, what: str) -> None:
        name = os.path.abspath(os.fsdecode(path))  # type: ignore[arg-type]
        # A failed attempt leaves nothing: in a missing folder, or to make a folder that exists.
        if "/__pycache__" in name or not os.access(os.path.dirname(name), os.W_OK):
            return
        if what == "os.mkdir" and os.path.isdir(name):
            return
        if not f"{name}/".startswith(folders) and not f"{os.path.realpath(name)}/".startswith(folders):
            report(f"{what} {name}")

    def hook(event: str, arguments: "tuple[object, ...]") -> None:
        try:
            if event == "open":
                path, _, flags = arguments
                if isinstance(path, str | bytes | os.PathLike) and isinstance(flags, int) and flags & _WRITES:
                    check(path, "wrote")
            elif event in _CHANGES:
                path, folder = _CHANGES[event]
                if folder is None or arguments[folder] == -1:
                    check(arguments[path], event)
            elif event in _CONNECTS and not is_loopback(arguments[1]):
                report(f"connected to {arguments[1]}")
        except Exception:
            # An error in a hook would change the behaviour of the process.
            return

    sys.addaudithook(hook)


if REPORT in os.environ and FOLDERS in os.environ:
    watch(tuple(os.environ[FOLDERS].split(os.pathsep)))
