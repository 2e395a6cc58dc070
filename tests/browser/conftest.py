"""A real Chromium without a network: every request a page makes is written down."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium driven by playwright; the test is skipped where either is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (the dev extra)")
    if CHROMIUM is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A fresh page; `page.requests` lists the addresses asked for, `page.errors` what went wrong in it."""
    context = browser.new_context(viewport={"width": 1180, "height": 900})
    made = context.new_page()
    made.requests, made.errors = [], []
    made.on("request", lambda request: made.requests.append(request.url))
    made.on("pageerror", lambda error: made.errors.append(str(error)))
    yield made
    context.close()


@pytest.fixture(scope="session")
def screenshots(root: Path) -> Path:
    """Folder for pictures that people look at (not committed)."""
    folder = root / "out" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
