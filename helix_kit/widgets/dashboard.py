"""Open a notebook as a dashboard: ``python -m helix_kit.widgets.dashboard [NOTEBOOK] [--forget] [voila options]``.

Voila runs the notebook and shows its outputs without the code, each as soon as it is computed. The page template loads
nothing from other machines. Results that take seconds, and the last plan solved, are kept until the next visit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from helix_kit._files import cache_dir, notebook_path
from helix_kit.widgets.visits import VARIABLE

SHARE = Path(__file__).parent / "share"
NOTEBOOK = notebook_path("06_explore.ipynb")
FORGET = "--forget"
"""Option that deletes what earlier visits have kept."""


def results_dir() -> Path:
    """The folder with what visits keep: the one that the environment variable names, else one in the user's cache."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else cache_dir() / "dashboard"


def command(notebook: Path, options: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """The command that serves `notebook`, and its environment variables."""
    paths = [str(SHARE), *filter(None, [os.environ.get("JUPYTER_PATH")])]
    environment = {**os.environ, "JUPYTER_PATH": os.pathsep.join(paths), VARIABLE: str(results_dir())}
    line = [
        sys.executable, "-m", "voila", str(notebook), "--template=helix", "--Voila.ip=127.0.0.1",
        "--progressive_rendering=True", *options,
    ]  # fmt: skip
    return line, environment


def main(arguments: Sequence[str]) -> int:
    """Serve a notebook (by default 06_explore) until Ctrl-C; return the exit code."""
    named = [a for a in arguments if not a.startswith("-")]
    notebook = Path(named[0]) if named else NOTEBOOK
    if not notebook.is_file():
        print(f"{notebook}: no such notebook", file=sys.stderr)
        return 2
    if FORGET in arguments:
        shutil.rmtree(results_dir(), ignore_errors=True)
    line, environment = command(notebook, [a for a in arguments if a.startswith("-") and a != FORGET])
    try:
        return subprocess.run(line, env=environment, check=False).returncode
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
