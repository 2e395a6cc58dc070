"""The registry of experiments: one function computes a table, one draws it, and both leave a trail.

An experiment is a function that returns a table, registered with a function that draws it::

    @experiment("azure-trace", title="Azure conversation trace", paper="Figure 5", draw=draw_lengths)
    def azure_trace(context: Context) -> pandas.DataFrame: ...

`run_experiment` writes ``NAME.csv``, ``NAME.png``, ``NAME.pdf`` and ``NAME.json``. The JSON is the provenance:
digests of everything the result depends on (code, data, other experiments, parameters), seed, versions, seconds and
machine. A finished experiment whose digests have not changed is not run again; when only its drawing has changed, it
is only drawn again. Pictures are drawn from the CSV as written, so that both always agree.

Seconds never go into the CSV, which must be the same at every run: an experiment puts what it measured into
`Context.measured`, which is kept in the JSON and handed to the drawing function as ``table.attrs``. So every
``NAME.csv`` is the same bytes again, and so is every PDF but those of experiments whose picture shows what they
`measure`: theirs is also written as ``NAME-measured.csv``.

Fast results (shorter simulations and solves) never lie in one folder with full ones.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_kit import _files
from helix_kit.errors import HelixKitError, InputError
from helix_kit.experiments.machinery import digests

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Say = Callable[[str], None]
PARTS = ("csv", "png", "pdf")
FIGURES, FAST_FIGURES = Path("figures"), Path("figures/fast")


class NotHereError(HelixKitError):
    """An experiment cannot be run on this machine: something that it needs is not there. The others go on."""


@dataclass(frozen=True)
class Context:
    """How an experiment is to run: `fast` shortens it (fewer simulated minutes, shorter solves)."""

    fast: bool = False
    seed: int = 0
    say: Say = lambda message: None
    folder: Path = FIGURES
    """Where the results of other experiments lie."""
    measured: dict[str, Any] = field(default_factory=dict)
    """What differs from run to run (seconds, machine time): goes into the provenance, never into the CSV."""


@dataclass(frozen=True)
class Experiment:
    """One figure or table: where it stands in the paper, how it is computed and drawn."""

    name: str
    title: str
    paper: str
    compute: Callable[[Context], pd.DataFrame]
    draw: Callable[[pd.DataFrame], Figure]
    needs: tuple[str, ...] = ()
    """Experiments whose CSV it reads."""
    data: tuple[str, ...] = ("",)
    """Parts of the data folder it depends on."""
    minutes: float = 0.1
    """About how long it takes on two cores, for the time left where no earlier run tells."""
    measures: tuple[str, ...] = ()
    """Columns of ``NAME-measured.csv``, where its picture shows what was measured on this machine: that table, PNG
    and PDF differ from run to run (the CSV does not). It runs alone, so that nothing else takes the machine's time."""
    text: str = ""
    """What the picture shows, for the document."""

    @property
    def timed(self) -> bool:
        """Whether its picture shows what was measured on this machine."""
        return bool(self.measures)


_registry: dict[str, Experiment] = {}


def experiment(
    name: str, *, title: str, paper: str, draw: Callable[[pd.DataFrame], Figure], **more: Any
) -> Callable[[Callable[[Context], pd.DataFrame]], Callable[[Context], pd.DataFrame]]:
    """Register the decorated function as the experiment `name`; `more` are the other fields of `Experiment`."""

    def register(compute: Callable[[Context], pd.DataFrame]) -> Callable[[Context], pd.DataFrame]:
        assert name not in _registry, f"two experiments are called {name}"
        _registry[name] = Experiment(name, title, paper, compute, draw, **more)
        return compute

    return register


def experiments() -> dict[str, Experiment]:
    """All experiments by name, in the order of the paper."""
    from helix_kit.experiments.machinery import catalogue

    order = catalogue.ORDER
    return {name: _registry[name] for name in sorted(_registry, key=lambda n: order.index(_module(n)))}


def _module(name: str) -> str:
    return _registry[name].compute.__module__.rpartition(".")[2]


def get(name: str) -> Experiment:
    """The experiment called `name`; raises InputError for an unknown one."""
    known = experiments()
    if name not in known:
        raise InputError(_files.unknown("experiment", name, known))
    return known[name]


def provenance(name: str, folder: Path) -> dict[str, Any]:
    """The provenance in ``folder/NAME.json``; empty where there is none that can be read."""
    try:
        found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        return found
    except (OSError, json.JSONDecodeError):
        return {}


def load(name: str, folder: Path = Path("figures")) -> pd.DataFrame:
    """A finished experiment's table, with what was measured in its ``attrs``."""
    import pandas as pd

    path = folder / f"{name}.csv"
    if not path.is_file():
        raise InputError(f"run `helix-kit reproduce {name}` first: no such file", where=path)
    # No group of ours is called "", and a method called "none" is not a missing value.
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    table.attrs = provenance(name, folder).get("measured", {})
    return table


def is_current(name: str, folder: Path, context: Context) -> bool:
    """Whether `folder` holds a finished result of the experiment, made from the same code, data and parameters."""
    return _is_computed(name, folder, context) and provenance(name, folder).get("drawing") == _drawing(name)


def _is_computed(name: str, folder: Path, context: Context) -> bool:
    complete = all((folder / f"{name}.{end}").is_file() for end in PARTS)
    return complete and provenance(name, folder).get("inputs") == _inputs(name, folder, context)


def _inputs(name: str, folder: Path, context: Context) -> dict[str, Any]:
    entry = get(name)
    inputs = {
        "code": digests.code_digest(entry.compute.__module__),
        "data": digests.data_digest(entry.data),
        "fast": context.fast,
        "seed": context.seed,
    }
    if entry.needs:
        inputs["results"] = digests.files_digest(folder / f"{other}.csv" for other in entry.needs)
    return inputs


def _drawing(name: str) -> str:
    return digests.code_digest(get(name).draw.__module__, drawing=True)


def check_folder(folder: Path, *, fast: bool) -> None:
    """Raise InputError when `folder` holds results of the other sort: fast ones are never mixed with full ones."""
    for path in sorted(folder.glob("*.json")):
        found = provenance(path.stem, folder).get("inputs", {}).get("fast", fast)
        if found != fast:
            kinds = ("fast", "full") if found else ("full", "fast")
            raise InputError(
                f"expected a folder without {kinds[0]} results for {kinds[1]} ones", where=path, field="inputs.fast",
                value=found,
            )  # fmt: skip


def run_experiment(name: str, folder: Path, context: Context, *, force: bool = False) -> bool:
    """Run an experiment unless it is current; returns whether it ran. Raises InputError for an unknown name.

    What it `needs` must be there: `running.run_all` runs those first.
    """
    entry = get(name)
    context = Context(context.fast, context.seed, context.say, folder)
    check_folder(folder, fast=context.fast)
    if not force and is_current(name, folder, context):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    trail = provenance(name, folder)
    if force or not _is_computed(name, folder, context):
        inputs = _inputs(name, folder, context)
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
            "versions": {
                p: metadata.version(p)
                for p in ("helix-kit", "numpy", "numba", "pandas", "pyomo", "highspy", "networkx", "matplotlib")
            },
            "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
        }
        _finish(entry, folder, trail, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    else:
        _finish(entry, folder, trail)
    return True


def redraw(name: str, folder: Path) -> None:
    """Draw the picture again from the table that is there, whatever has changed since: nothing is computed.

    Raises InputError where there is no table.
    """
    load(name, folder)
    _finish(get(name), folder, provenance(name, folder))


def _finish(entry: Experiment, folder: Path, trail: dict[str, Any], table: str | None = None) -> None:
    """Write table (None: the one that is there), pictures and provenance: first aside, then all into their places.

    The provenance goes first and comes last, so that a run that was interrupted in between is done again.
    """
    name = entry.name
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}-") as aside:
        work = Path(aside)
        text = (folder / f"{name}.csv").read_text(encoding="utf-8") if table is None else table
        (work / f"{name}.csv").write_text(text, encoding="utf-8")
        _write_measured(entry, work, trail.get("measured", {}))
        picture(name, work, measured=trail.get("measured", {}))
        if trail:
            text = json.dumps({**trail, "drawing": _drawing(name)}, indent=1)
            (work / f"{name}.json").write_text(text + "\n", encoding="utf-8")
            (folder / f"{name}.json").unlink(missing_ok=True)
        for path in sorted(work.iterdir(), key=lambda p: p.suffix == ".json"):
            path.replace(folder / path.name)


def measured_file(name: str, folder: Path) -> Path:
    """Where the table of what was measured lies, if there is one."""
    return folder / f"{name}-measured.csv"


def _write_measured(entry: Experiment, folder: Path, measured: Mapping[str, Any]) -> None:
    """`measured` as a table: a key, a key within it where there is one, then a number or a row of them."""
    if entry.measures:
        lines = [
            ",".join(entry.measures),
            *(",".join("" if cell is None else str(cell) for cell in row) for row in _cells(measured)),
        ]
        measured_file(entry.name, folder).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cells(value: Any) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, Mapping):
        yield from ((key, *rest) for key, inner in value.items() for rest in _cells(inner))
    elif value and isinstance(value, list) and isinstance(value[0], list):
        yield from (tuple(row) for row in value)
    else:
        yield (value,)


def picture(name: str, folder: Path, *, measured: Mapping[Any, Any] | None = None) -> None:
    """Draw the table in ``folder/NAME.csv`` again as PNG and PDF."""
    import matplotlib as mpl

    table = load(name, folder)
    if measured is not None:
        table.attrs = {**measured}
    with mpl.rc_context({"pdf.fonttype": 42, "svg.hashsalt": name, "hatch.linewidth": 0.6}):
        figure = get(name).draw(table)
        figure.savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None})
        figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
        figure.clear()
