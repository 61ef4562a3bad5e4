"""Pages in a real browser that fail on console errors and failed requests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Pages are files. Without this Chromium looks up the hosts of its makers' services.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


def chromium_binary() -> Path | None:
    """Return the program of Chromium: $CHROMIUM_BIN, or chromium on PATH."""
    binary = Path(os.environ.get("CHROMIUM_BIN") or shutil.which("chromium") or "/usr/bin/chromium")
    return binary if binary.exists() else None


OpenPage = Callable[..., AbstractContextManager[Any]]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium; its scope ends with the module, for the event loop it needs must not outlive it."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    binary = chromium_binary()
    if binary is None:
        pytest.skip("no Chromium: install chromium or set CHROMIUM_BIN")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(binary), args=list(ARGUMENTS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def open_page(browser: Any) -> OpenPage:
    """Open a file; console errors, script errors and failed or foreign requests fail the test at the end."""

    @contextmanager
    def opened(path: Path, *, scheme: str = "light", width: int = 1180) -> Iterator[Any]:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        wrong: list[str] = []
        page.on("console", lambda m: wrong.append(m.text) if m.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(f"failed {request.url[:200]}"))
        page.on("request", lambda r: wrong.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
        page.on("dialog", lambda dialog: (wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
        try:
            page.goto(path.as_uri())
            yield page
            assert wrong == []
        finally:
            page.close()

    return opened
