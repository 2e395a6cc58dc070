"""Execute the notebooks in place, outputs kept: ``python -m helix_kit.experiments.machinery.notebooks [NAME...]``.

`execute` can also save the executed notebook elsewhere and leave the file as it is, as the demo does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Progress = Callable[[int, int, str], None]
"""Called with (code cells done, code cells in total, heading above the next one)."""
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"


def execute(path: Path, timeout_s: int = 1800, progress: Progress | None = None, *, output: Path | None = None) -> Any:
    """Run a notebook from top to bottom, save it with its outputs to `output` (None: in place), and return it.

    Widget state is not saved, and of a widget with a picture only the picture is. So the notebook shows its pictures
    everywhere, and the widget appears again when its cell runs. If a cell fails, this raises nbclient's
    CellExecutionError and the file on disk is unchanged.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    headings = _headings(notebook.cells)
    code = [index for index, cell in enumerate(notebook.cells) if cell.cell_type == "code"]

    def on_start(cell: Any, cell_index: int) -> None:
        if progress and cell_index in headings:
            progress(code.index(cell_index), len(code), headings[cell_index])

    client = NotebookClient(
        notebook,
        timeout=timeout_s,
        kernel_name="python3",
        store_widget_state=False,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_execute=on_start,
    )
    client.execute()
    for cell in notebook.cells:
        # Times and the version of the kernel would change the file at every run without any use.
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
        for shown in cell.get("outputs", ()):
            if "image/png" in shown.get("data", {}):
                shown["data"].pop(WIDGET_MIME, None)
    notebook.metadata["language_info"] = {"name": "python"}
    output = output or path
    output.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, output)
    return notebook


def _joined(outputs: list[Any]) -> list[Any]:
    """The outputs with consecutive texts of one stream joined into one."""
    result: list[Any] = []
    for output in outputs:
        last = result[-1] if result else {}
        if output.output_type == "stream" == last.get("output_type") and output.name == last.get("name"):
            last["text"] += output["text"]
        else:
            result.append(output)
    return result


def _headings(cells: list[Any]) -> dict[int, str]:
    """Index of each code cell -> the last heading above it."""
    headings, heading = {}, ""
    for index, cell in enumerate(cells):
        if cell.cell_type == "code":
            headings[index] = heading
        else:
            titles = [line.lstrip("# ") for line in cell.source.splitlines() if line.startswith("#")]
            heading = titles[-1] if titles else heading
    return headings


def main(names: list[str]) -> None:
    """Execute the notebooks of these names; without names, all of them."""
    folder = Path("notebooks")
    for path in sorted(folder.glob("*.ipynb")):
        if names and path.stem not in names and path.name not in names:
            continue
        started = time.perf_counter()
        print(f"{path.name}: ", end="", flush=True)
        execute(path)
        print(f"{time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
