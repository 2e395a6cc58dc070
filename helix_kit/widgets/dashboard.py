"""Open a notebook as a dashboard: ``python -m helix_kit.widgets.dashboard [NOTEBOOK] [voila options]``.

Voila runs the notebook and shows its outputs without the code. The page template loads nothing from other machines.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from helix_kit._files import notebook_path

SHARE = Path(__file__).parent / "share"
NOTEBOOK = notebook_path("06_explore.ipynb")


def command(notebook: Path, options: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """The command that serves `notebook`, and its environment variables."""
    paths = [str(SHARE), *filter(None, [os.environ.get("JUPYTER_PATH")])]
    environment = {**os.environ, "JUPYTER_PATH": os.pathsep.join(paths)}
    line = [sys.executable, "-m", "voila", str(notebook), "--template=helix", "--Voila.ip=127.0.0.1", *options]
    return line, environment


def main(arguments: Sequence[str]) -> int:
    """Serve a notebook (by default 06_explore) until Ctrl-C; return the exit code."""
    named = [a for a in arguments if not a.startswith("-")]
    notebook = Path(named[0]) if named else NOTEBOOK
    if not notebook.is_file():
        print(f"{notebook}: no such notebook", file=sys.stderr)
        return 2
    line, environment = command(notebook, [a for a in arguments if a.startswith("-")])
    try:
        return subprocess.run(line, env=environment, check=False).returncode
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
