"""The evaluation on one cluster (paper, section 6.3) with worker processes: published, simulated, served.

``helix_kit.experiments.evaluate.published`` measures; ``make figures-real`` calls it. The measurements lie in
``data/measured/single24``, one file for each method, model and mode. This experiment puts them beside the published
values and computes nothing that takes time.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from helix_kit import _files
from helix_kit.experiments.figures.common.published import published_run
from helix_kit.experiments.figures.common.rows import COLUMNS, OURS, PROTOTYPE, SIMULATION, metric_rows
from helix_kit.experiments.figures.pictures.real_workers import WORKERS, draw_real_workers
from helix_kit.experiments.machinery.registry import Context, NotAvailableError, experiment

MEASURED = ("measured", "single24")
"""Folder of the measurements in the data folder."""
METHODS = ("helix", "swarm", "separate")
FACTS = ("late_steps_share", "steps", "time_scale", "workers", "requests", "finished", "cpu_ms_per_step")
"""Fields of a measurement that are rows of the table, too."""


def measurements() -> list[dict[str, Any]]:
    """All measurements: 70B first, offline first, methods in the order of the paper."""
    folder = _files.data_dir().joinpath(*MEASURED)
    found = [_files.read_json(path) for path in sorted(folder.glob("*.json"))] if folder.is_dir() else []
    return sorted(found, key=lambda one: (one["model"] != "llama2-70b", one["mode"], METHODS.index(one["method"])))


def is_measured() -> bool:
    """Whether there is any measurement."""
    return any(_files.data_dir().joinpath(*MEASURED).glob("*.json"))


@experiment(
    "real-single-cluster",
    title="One cluster: published results, our simulation, and 24 worker processes",
    paper="Section 6.3",
    draw=draw_real_workers,
    data=("published", "measured"),
    can_run=is_measured,
    text="Decode throughput and latencies (boxes: 5, 25, 50, 75 and 95 %) of the published placements under the "
    "published loads. The workers are processes with stand-in layers, paced to the profiles of the 24 machines, whose "
    "messages take the time of the published links: scheduling, batching, KV pages, routing and messages are real, "
    "speeds are declared. Our simulation has the rules of these workers and the same window; the published values are "
    "of longer runs of the authors' simulator and prototype.",
)
def real_single_cluster(context: Context) -> pd.DataFrame:
    """Rows of the published values, of our simulation and of the workers, and how far the last two are apart."""
    found = measurements()
    if not found:
        raise NotAvailableError("nothing has been measured yet: make figures-real")
    rows = []
    for one in found:
        run = published_run(one["setup"], one["model"], one["method"], one["mode"])
        values = {
            SIMULATION: run.values("simulation"),
            PROTOTYPE: run.values("prototype"),
            OURS: one["simulated"],
            WORKERS: {**one["served"], **{name: one[name] for name in FACTS}, **_differences(one)},
        }
        rows += metric_rows(run.case, run.method, values)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _differences(result: dict[str, Any]) -> dict[str, float]:
    """How far the workers are from our simulation, by metric, and the ends of the interval."""
    return {
        f"{difference['metric']}_difference{end}": difference[key]
        for difference in result["differences"]
        for end, key in (("", "share"), ("_low", "low"), ("_high", "high"))
    }
