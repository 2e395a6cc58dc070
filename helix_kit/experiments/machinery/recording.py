"""Runs one experiment and records it: table, pictures, and the provenance that says what they depend on.

`run_experiment` writes ``NAME.csv``, ``NAME.png``, ``NAME.pdf`` and ``NAME.json``. The JSON is the provenance:
digests of everything the result depends on (code, data, other experiments, parameters), seed, versions, seconds and
machine. A finished experiment whose digests have not changed is not run again. If only its drawing has changed, it is
only drawn again. Pictures are drawn from the CSV as written, so the two always agree.

The CSV must be the same at every run, so seconds never go into it: an experiment puts measurements into
`Context.measured`. They are kept in the JSON and handed to the drawing function as ``table.attrs``. Every ``NAME.csv``
is therefore reproduced byte for byte, and so is every PDF except those of experiments with `Experiment.measures`, whose
pictures show measurements; these are also written as ``NAME-measured.csv``.

Fast results (shorter simulations and solves) and full results are never mixed in one folder.
"""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from helix_kit.experiments.machinery import digests
from helix_kit.experiments.machinery.catalogue import experiment_named, needs_of
from helix_kit.experiments.machinery.files import check_folder, is_complete, load, measured_file, provenance
from helix_kit.experiments.machinery.registry import Context, Experiment

PACKAGES = ("helix-kit", "numpy", "numba", "pandas", "pyomo", "highspy", "networkx", "matplotlib")
"""Packages whose versions are recorded."""


def is_current(name: str, folder: Path, context: Context) -> bool:
    """Whether the folder holds a finished result that was made from the present code, data and parameters.

    Parameters
    ----------
    name
        The experiment.
    folder
        The folder with its files.
    context
        How it would be run.

    Returns
    -------
    bool
        True if `run_experiment` would do nothing.

    Examples
    --------
    >>> is_current("azure-trace", Path("no-such-folder"), Context())
    False
    """
    return _is_computed(name, folder, context) and provenance(name, folder).get("drawing") == drawing_digest(name)


def _is_computed(name: str, folder: Path, context: Context) -> bool:
    return is_complete(name, folder) and provenance(name, folder).get("inputs") == inputs_of(name, folder, context)


def inputs_of(name: str, folder: Path, context: Context) -> dict[str, Any]:
    """Everything that the table of an experiment depends on: digests and parameters."""
    entry = experiment_named(name)
    inputs = {
        "code": digests.code_digest(entry.compute.__module__),
        "data": digests.data_digest(entry.data),
        "fast": context.fast,
        "seed": context.seed,
    }
    if needs := needs_of(name, context.fast):
        inputs["results"] = digests.files_digest(folder / f"{other}.csv" for other in needs)
    if parts := [other for other in entry.needs if other not in needs]:
        inputs["parts"] = [digests.code_digest(experiment_named(other).compute.__module__) for other in parts]
    return inputs


def drawing_digest(name: str) -> str:
    """Digest of the code that draws the experiment."""
    return digests.code_digest(experiment_named(name).draw.__module__, drawing=True)


def run_experiment(name: str, folder: Path, context: Context, *, force: bool = False) -> bool:
    """Run an experiment unless its result is up to date, and write its files.

    The experiments that it needs must have been run; `run_all` runs them first.

    Parameters
    ----------
    name
        The experiment.
    folder
        Where its files are written, and where the results it needs lie.
    context
        How it is run; `folder` takes the place of ``context.folder``.
    force
        Run it even if its result is up to date.

    Returns
    -------
    bool
        Whether it ran, or was drawn again.

    Raises
    ------
    InputError
        For an unknown name, for a folder with results of the other kind (fast or full), or if a result that it needs
        is missing.
    NotAvailableError
        If this machine lacks something that it needs.

    Examples
    --------
    >>> run_experiment("azure-trace", Path("figures"), Context(fast=True))    # doctest: +SKIP
    True
    """
    entry = experiment_named(name)
    context = Context(context.fast, context.seed, context.say, folder)
    check_folder(folder, fast=context.fast)
    if not force and is_current(name, folder, context):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    if not force and _is_computed(name, folder, context):
        _write(entry, folder, provenance(name, folder))
        return True
    inputs = inputs_of(name, folder, context)
    started, cpu = time.perf_counter(), time.process_time()
    table = entry.compute(context)
    trail = {
        "experiment": name,
        "title": entry.title,
        "paper": entry.paper,
        "inputs": inputs,
        "note": "a fast run: shorter simulations and solves, rougher numbers" if context.fast else "",
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "measured": context.measured,
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
    }
    _write(entry, folder, trail, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    return True


def redraw(name: str, folder: Path) -> None:
    """Draw the picture again from the table in the folder, whatever has changed since; nothing is computed.

    Parameters
    ----------
    name
        The experiment.
    folder
        The folder with its files.

    Raises
    ------
    InputError
        If the folder has no table of the experiment.

    Examples
    --------
    >>> redraw("azure-trace", Path("figures"))                                # doctest: +SKIP
    """
    load(name, folder)
    _write(experiment_named(name), folder, provenance(name, folder))


def _write(entry: Experiment, folder: Path, trail: dict[str, Any], table: str | None = None) -> None:
    """Write table (None: the one in the folder), pictures and provenance: first aside, then all into their places.

    The old provenance is removed first and the new one comes last, so an interrupted run is repeated.
    """
    name = entry.name
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}-") as aside:
        work = Path(aside)
        text = (folder / f"{name}.csv").read_text(encoding="utf-8") if table is None else table
        (work / f"{name}.csv").write_text(text, encoding="utf-8")
        measured = trail.get("measured", {})
        if entry.measures:
            measured_file(name, work).write_text(_measured_table(entry.measures, measured), encoding="utf-8")
        _draw(entry, work, measured)
        if trail:
            text = json.dumps({**trail, "drawing": drawing_digest(name)}, indent=1)
            (work / f"{name}.json").write_text(text + "\n", encoding="utf-8")
            (folder / f"{name}.json").unlink(missing_ok=True)
        for path in sorted(work.iterdir(), key=lambda p: p.suffix == ".json"):
            path.replace(folder / path.name)


def _measured_table(columns: tuple[str, ...], measured: Mapping[str, Any]) -> str:
    """The measurements as CSV: the key, the key within it if there is one, then a number or a row of numbers."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(measured_rows(measured))
    return text.getvalue()


def measured_rows(value: Any) -> Iterator[tuple[Any, ...]]:
    """Rows of nested measurements: one for each number or row of numbers, with the keys that lead to it."""
    if isinstance(value, Mapping):
        yield from ((key, *rest) for key, inner in value.items() for rest in measured_rows(inner))
    elif value and isinstance(value, list) and isinstance(value[0], list):
        yield from (tuple(row) for row in value)
    else:
        yield (value,)


def _draw(entry: Experiment, folder: Path, measured: Mapping[Any, Any]) -> None:
    """Draw the table in ``folder/NAME.csv`` as PNG and PDF, without dates and versions that would change the bytes."""
    import matplotlib as mpl

    name = entry.name
    table = load(name, folder)
    table.attrs = {**measured}
    with mpl.rc_context({"pdf.fonttype": 42, "svg.hashsalt": name, "hatch.linewidth": 0.6}):
        figure = entry.draw(table)
        figure.savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None})
        figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
        figure.clear()
