"""Every connection that a command and its child processes attempt, as the kernel sees it: native code's as well."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from kubeyolo import NO_TELEMETRY

NO_STRACE = "no strace, or no permission to trace: install strace"

_STRACE = ("strace", "-f", "--seccomp-bpf", "-qq", "-s", "128", "-e", "signal=none")
_CALLS = ("-e", "trace=connect,sendto,sendmsg,sendmmsg")

_FAMILY = re.compile(r"sa_family=(AF_\w+)")
_ADDRESSES = {
    "AF_INET": re.compile(r'sa_family=AF_INET, sin_port=htons\((?P<port>\d+)\), sin_addr=inet_addr\("(?P<host>.+?)"\)'),
    "AF_INET6": re.compile(
        r'sa_family=AF_INET6, sin6_port=htons\((?P<port>\d+)\),.*?inet_pton\(AF_INET6, "(?P<host>.+?)"'
    ),
    "AF_UNIX": re.compile(r'sa_family=AF_UNIX, sun_path=(?P<host>@?".*?")'),
}

_WITHIN_THE_MACHINE = re.compile(r'"(/var)?/run/(nscd/socket|systemd/userdb/.*|uuidd/request)"|"/var/lib/sss/.*"')
"""Unix sockets that glibc and libuuid try: for the names of users and groups, and for unique ids."""

_CI = ("CI", "TF_BUILD", "GITHUB_ACTIONS", "GITLAB_CI", "CIRCLECI", "TRAVIS", "JENKINS_URL", "CODEBUILD_BUILD_ID")
_CI += ("BUILDKITE", "TEAMCITY_VERSION", "APPVEYOR", "BITBUCKET_BUILD_NUMBER")

MACHINE_ID = Path(".cache/Microsoft/DeveloperTools/.onnxruntime/deviceid")
"""File in the home folder with the id of the machine, which onnxruntime makes for its telemetry."""

# The kernel itself is at the other end of netlink; AF_UNSPEC ends a connection.
_NO_CONNECTION = ("AF_NETLINK", "AF_UNSPEC")


def outside_ci(home: Path) -> dict[str, str]:
    """Return this environment as a user with an empty home has it: in CI onnxruntime sends no telemetry anyway."""
    home.mkdir()
    unset = {*_CI, *NO_TELEMETRY, "XDG_CACHE_HOME"}
    return {name: value for name, value in os.environ.items() if name not in unset} | {"HOME": str(home)}


@cache
def can_trace() -> bool:
    """Tell whether strace is there and may trace."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run([*_STRACE, *_CALLS, "-o", "/dev/null", "true"], capture_output=True).returncode == 0


def traced(command: Sequence[str], trace: Path) -> list[str]:
    """Return a command that runs another one and writes its attempts into a file; without strace, the other one."""
    return [*_STRACE, *_CALLS, "-o", str(trace), *command] if can_trace() else [*command]


def connections(trace: Path) -> set[str]:
    """Return the addresses of all attempts: host:port, [host]:port of IPv6, or the quoted path of a Unix socket.

    A lookup of a name is in it as an attempt to connect to a server of names, at port 53.
    """
    found = set()
    for line in trace.read_text(errors="replace").splitlines():
        for family in _FAMILY.findall(line):
            if family in _NO_CONNECTION:
                continue
            pattern = _ADDRESSES.get(family)
            matches = list(pattern.finditer(line)) if pattern else []
            if not matches:
                found.add(line)
            for match in matches:
                host = match["host"]
                if family == "AF_UNIX" and not _WITHIN_THE_MACHINE.fullmatch(host):
                    found.add(host)
                elif family != "AF_UNIX":
                    found.add(f"[{host}]:{match['port']}" if family == "AF_INET6" else f"{host}:{match['port']}")
    return found
