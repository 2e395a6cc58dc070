"""The documentation, built once for all tests of its pages."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Site:
    """A finished build: the folder of its pages, and what the build said."""

    html: Path
    exit_code: int
    messages: str

    @property
    def pages(self) -> list[Path]:
        """Every page."""
        return sorted(self.html.rglob("*.html"))


@pytest.fixture(scope="session")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The documentation as `make docs` builds it, in a folder of its own."""
    folder = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "-b", "html"]
    command += ["-d", str(folder / "doctrees"), str(root / "docs"), str(folder / "html")]
    environment = {**os.environ, "PYTHONUTF8": "1"}
    done = subprocess.run(command, check=False, cwd=root, capture_output=True, text=True, env=environment)
    return Site(folder / "html", done.returncode, done.stdout + done.stderr)
