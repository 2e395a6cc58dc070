"""The documentation site: it builds without a warning, its links lead somewhere, and it needs no network."""

from __future__ import annotations

import importlib
import pkgutil
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from sphinx.util.inventory import InventoryFile

import helix_kit

LOADED = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src", "object": "data"}
"""Elements that make a browser load a file, each with the attribute that names the file."""


class Page(HTMLParser):
    """The links, the loaded files and the anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get("id"):
            self.anchors.add(values["id"])
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        if tag in LOADED and values.get(LOADED[tag]):
            self.loaded.append(values[LOADED[tag]])


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    return {path.resolve(): Page(path) for path in site.pages}


def test_builds_without_warnings(site):
    assert site.exit_code == 0, site.messages


def test_links_lead_to_pages_and_anchors_that_exist(pages):
    wrong = []
    for path, page in pages.items():
        for link in page.links + page.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                wrong.append(f"{path.name}: {link}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                wrong.append(f"{path.name}: {link} (no such anchor)")
    assert not wrong


def test_no_page_loads_a_file_from_elsewhere(site, pages):
    loaded = [f"{path.name}: {name}" for path, page in pages.items() for name in page.loaded if "//" in name]
    styles = [
        f"{path.name}: {found}"
        for path in site.html.rglob("*.css")
        for found in re.findall(r"(?:url\(|@import)[^;)]*//[^;)]*", path.read_text(encoding="utf-8"))
        if "data:" not in found and "www.w3.org" not in found
    ]
    assert not loaded + styles


def test_formulas_need_no_script(site):
    page = (site.html / "concepts" / "bounds.html").read_text(encoding="utf-8")
    assert page.count("<math") > 5
    assert "mathjax.js" not in page.lower() and "katex" not in page.lower()


def public_names() -> list[str]:
    """Every name in an `__all__` of the package, as module.name."""
    names = [f"helix_kit.{name}" for name in helix_kit.__all__ if name != "__version__"]
    for info in pkgutil.walk_packages(helix_kit.__path__, "helix_kit."):
        if info.name.endswith(("__main__", ".triton_kernels")):  # the latter needs Triton, and exports nothing
            continue
        module = importlib.import_module(info.name)
        names += [f"{info.name}.{name}" for name in getattr(module, "__all__", ())]
    return names


def test_every_public_name_is_in_the_api_reference(site):
    """A name is found where it is described, or listed on its module's page with a link to that place."""
    inventory = InventoryFile.loads((site.html / "objects.inv").read_bytes(), uri="")
    described = {name for kind, entries in inventory.data.items() if kind.startswith("py:") for name in entries}
    missing = []
    for name in public_names():
        module, _, last = name.rpartition(".")
        page = site.html / "reference" / "api" / f"{module}.html"
        if name not in described and not (page.is_file() and f">{last}</span>" in page.read_text(encoding="utf-8")):
            missing.append(name)
    assert not missing


def test_methods_of_the_engine_are_described_whichever_file_they_are_in(site):
    inventory = InventoryFile.loads((site.html / "objects.inv").read_bytes(), uri="")
    described = {name for kind, entries in inventory.data.items() if kind.startswith("py:") for name in entries}
    for method in ("submit", "generate", "chat", "replay", "status", "swap"):
        assert f"helix_kit.runtime.Engine.{method}" in described


def test_floors_are_drawn_from_the_code(site, root):
    """The picture has a box for each part of the package, and says what `simulator` imports."""
    page = (site.html / "architecture.html").read_text(encoding="utf-8")
    parts = {p.stem for p in (root / "helix_kit").iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    assert all(f">{part}</text>" in page for part in parts - {"__init__"})
    found = re.search(r"<title>simulator imports ([^<]*)</title>", page)
    assert found and "scheduling" in found[1]
    assert "runtime" not in found[1]


def test_command_line_page_holds_every_command(site):
    page = (site.html / "reference" / "cli.html").read_text(encoding="utf-8")
    assert all(
        f'id="helix-kit-{name}"' in page for name in ("plan", "simulate", "serve", "profile", "reproduce", "explain")
    )
