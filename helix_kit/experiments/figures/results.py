"""All results in one table: every metric of every run, published and ours."""

from __future__ import annotations

import pandas as pd

from helix_kit.experiments.figures.agreement import EVALUATIONS
from helix_kit.experiments.figures.common.rows import COLUMNS
from helix_kit.experiments.figures.pictures.results import draw_results
from helix_kit.experiments.machinery.files import load
from helix_kit.experiments.machinery.registry import Context, experiment


@experiment(
    "all-results",
    title="All results: decode throughput against Helix's",
    paper="Sections 6.3 to 6.7, and beyond",
    draw=draw_results,
    needs=EVALUATIONS,
    data=(),
    minutes=0.01,
    text="One line for each setting, one mark for each method: its decode throughput over that of Helix's published "
    "plan in the same setting, both in our simulator. The CSV has every metric of the evaluation, published and ours.",
)
def all_results(context: Context) -> pd.DataFrame:
    """Section, setup, model, mode, method, source, metric and value of all tables of the evaluation."""
    rows = pd.concat([load(name, context.folder) for name in EVALUATIONS], ignore_index=True)
    return rows[list(COLUMNS)]
