"""Open a notebook as a dashboard: ``python -m helix_kit.widgets.dashboard [NOTEBOOK] [voila options]``.

Voila runs the notebook and shows its outputs without the code, with a page template of ours that asks nobody but
this machine for anything.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SHARE = Path(__file__).parent / "share"
NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "06_explore.ipynb"


def command(notebook: Path, options: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """The command line that serves `notebook`, and the environment that it needs."""
    paths = [str(SHARE), *filter(None, [os.environ.get("JUPYTER_PATH")])]
    environment = {**os.environ, "JUPYTER_PATH": os.pathsep.join(paths)}
    line = [sys.executable, "-m", "voila", str(notebook), "--template=helix", "--Voila.ip=127.0.0.1", *options]
    return line, environment


def main(arguments: Sequence[str]) -> int:
    """Serve the notebook named first (06_explore by default) until Ctrl-C."""
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
