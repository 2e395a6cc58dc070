"""What the pages name exists: files and folders of the repository, and modules, classes and functions."""

from __future__ import annotations

import importlib
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
SPAN = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"(?<![\w.:/~-])(?:[\w.*-]+/)+[\w.*-]*|(?<![\w./-])\w+\.py\b")
NAME = re.compile(r"(?<![\w.])(?:helix_kit|hk)(?:\.\w+)+")
PLACEHOLDER = re.compile(r"[A-Z]{4,}")
"""A word such as NAME in a path stands for any name."""


@pytest.fixture(scope="module")
def tracked(root: Path) -> set[str]:
    """Every file and folder of the repository, as a path from its root."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("needs a git checkout")
    files = [PurePosixPath(line) for line in listed.stdout.splitlines()]
    return {str(path) for file in files for path in (file, *file.parents)} - {"."}


def spans(page: Path) -> list[str]:
    return SPAN.findall(FENCE.sub("", page.read_text(encoding="utf-8")))


def is_there(path: str, tracked: set[str]) -> bool:
    """Whether a file or folder ends with `path`, or programs write it: git ignores it, or the Makefile names it."""
    pattern = PLACEHOLDER.sub("*", path.strip("/"))
    if any(fnmatch(name, pattern) or fnmatch(name, f"*/{pattern}") for name in tracked):
        return True
    command = ["git", "check-ignore", path, f"{path.rstrip('/')}/"]
    ignored = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    return ignored.returncode == 0 or path in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_paths_exist(page: Path, tracked: set[str]) -> None:
    """Paths whose first part is no folder of the repository are the reader's own."""
    folders = {part for name in tracked for part in PurePosixPath(name).parts[:-1]}
    mentioned = {path for span in spans(page) for path in PATH.findall(span)}
    ours = {path for path in mentioned if "/" not in path or path.split("/")[0] in folders}
    assert {path for path in ours if not is_there(path, tracked)} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_names_of_the_package_exist(page: Path) -> None:
    missing = set()
    for name in {name for span in spans(page) for name in NAME.findall(span)}:
        found, path = importlib.import_module("helix_kit"), "helix_kit"
        for part in name.split(".")[1:]:
            path += f".{part}"
            try:
                found = getattr(found, part)
            except AttributeError:
                try:
                    found = importlib.import_module(path)
                except ImportError:
                    missing.add(name)
                    break
    assert missing == set()
