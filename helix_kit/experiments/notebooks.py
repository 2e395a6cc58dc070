"""Execute the notebooks in place, outputs kept: ``python -m helix_kit.experiments.notebooks [NAME...]``."""

from __future__ import annotations

import sys
import time
from pathlib import Path


def execute(path: Path, timeout_s: int = 1800) -> float:
    """Run a notebook top to bottom and save it with its outputs; returns the seconds it took.

    Widget state is left out: it would hide the pictures from viewers without a kernel. A cell that fails
    raises nbclient's CellExecutionError and the file on disk stays as it was.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    started = time.perf_counter()
    client = NotebookClient(
        notebook,
        timeout=timeout_s,
        kernel_name="python3",
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    # Times and the kernel's own version would change the file at every run and say nothing.
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)
    return time.perf_counter() - started


def main(names: list[str]) -> None:
    """Execute the notebooks called `names` (all of them by default)."""
    folder = Path("notebooks")
    for path in sorted(folder.glob("*.ipynb")):
        if names and path.stem not in names and path.name not in names:
            continue
        print(f"{path.name}: ", end="", flush=True)
        print(f"{execute(path):.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
