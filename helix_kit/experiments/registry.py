"""The registry of experiments: one function computes a table, one draws it, and both leave a trail.

An experiment is a function that returns a table, registered with a function that draws it::

    @experiment("azure-trace", title="Azure conversation trace", paper="Figure 5", draw=draw_lengths)
    def azure_trace(context: Context) -> pandas.DataFrame: ...

`run_experiment` writes ``NAME.csv``, ``NAME.png``, ``NAME.pdf`` and ``NAME.json``. The JSON is the provenance:
a digest of everything the result depends on (the package's code and data, and the parameters), seed, versions,
seconds and machine. A finished experiment whose digest has not changed is not run again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_kit import _files
from helix_kit.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Say = Callable[[str], None]


@dataclass(frozen=True)
class Context:
    """How an experiment is to run: `fast` shortens it (fewer simulated minutes, shorter solves)."""

    fast: bool = False
    seed: int = 0
    say: Say = lambda message: None


@dataclass(frozen=True)
class Experiment:
    """One figure or table: where it stands in the paper, how it is computed and drawn."""

    name: str
    title: str
    paper: str
    compute: Callable[[Context], pd.DataFrame]
    draw: Callable[[pd.DataFrame], Figure]


_registry: dict[str, Experiment] = {}


def experiment(
    name: str, *, title: str, paper: str, draw: Callable[[pd.DataFrame], Figure]
) -> Callable[[Callable[[Context], pd.DataFrame]], Callable[[Context], pd.DataFrame]]:
    """Register the decorated function as the experiment `name`."""

    def register(compute: Callable[[Context], pd.DataFrame]) -> Callable[[Context], pd.DataFrame]:
        assert name not in _registry, f"two experiments are called {name}"
        _registry[name] = Experiment(name, title, paper, compute, draw)
        return compute

    return register


def experiments() -> dict[str, Experiment]:
    """All experiments by name, in the order of the paper."""
    from helix_kit.experiments import catalogue  # noqa: F401  (importing it registers them)

    return dict(_registry)


@cache
def code_digest() -> str:
    """Digest of the package's Python files and data: results are only as old as these."""
    digest = hashlib.sha256()
    package = Path(__file__).resolve().parent.parent
    for base, pattern in ((package, "*.py"), (_files.data_dir(), "*")):
        for path in sorted(p for p in base.rglob(pattern) if p.is_file() and "__pycache__" not in p.parts):
            digest.update(str(path.relative_to(base)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def is_current(name: str, folder: Path, context: Context) -> bool:
    """Whether `folder` holds a finished result of the experiment, made from the same code, data and parameters."""
    try:
        provenance = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return False
    complete = all((folder / f"{name}.{end}").is_file() for end in ("csv", "png", "pdf"))
    return complete and provenance.get("inputs") == _inputs(context)


def _inputs(context: Context) -> dict[str, Any]:
    return {"code_and_data": code_digest(), "fast": context.fast, "seed": context.seed}


def run_experiment(name: str, folder: Path, context: Context, *, force: bool = False) -> bool:
    """Run an experiment unless it is current; returns whether it ran. Raises InputError for an unknown name."""
    import matplotlib as mpl

    known = experiments()
    if name not in known:
        raise InputError(_files.unknown("experiment", name, known))
    if not force and is_current(name, folder, context):
        return False
    chosen = known[name]
    started = time.perf_counter()
    table = chosen.compute(context)
    seconds = time.perf_counter() - started
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    with mpl.rc_context({"pdf.fonttype": 42, "svg.hashsalt": name}):
        figure = chosen.draw(table)
        figure.savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None})
        figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
        figure.clear()
    provenance = {
        "experiment": name,
        "title": chosen.title,
        "paper": chosen.paper,
        "inputs": _inputs(context),
        "seconds": round(seconds, 2),
        "versions": {p: metadata.version(p) for p in ("helix-kit", "numpy", "pandas", "pyomo", "highspy", "networkx")},
        "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
    }
    # Written last: a run that was interrupted leaves no provenance and is done again.
    (folder / f"{name}.json").write_text(json.dumps(provenance, indent=1) + "\n", encoding="utf-8")
    return True
