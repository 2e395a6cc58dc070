"""Every published number of the evaluation beside ours, the difference, and its reason as far as it is known."""

from __future__ import annotations

from typing import Any

import pandas as pd

from helix_kit.experiments.figures.common.rows import OURS, PROTOTYPE, SIMULATION
from helix_kit.experiments.figures.pictures.agreement import draw_agreement
from helix_kit.experiments.machinery.files import load
from helix_kit.experiments.machinery.registry import Context, experiment

EVALUATIONS = (
    "single-cluster",
    "geo-distributed",
    "high-heterogeneity",
    "placement-deep-dive",
    "scheduling-deep-dive",
)
KEYS = ["section", "setup", "model", "mode", "method", "metric"]
HALF_DIGIT = {"tokens_per_s": 0.05, "_s": 0.005}
"""Half of the last printed digit of the published simulation, by the end of the metric's name."""
TOLERANCE_PERCENT = 5.0
UNKNOWN = "not known"


@experiment(
    "agreement",
    title="Every published number of the evaluation beside ours",
    paper="Sections 6.3 to 6.7",
    draw=draw_agreement,
    needs=EVALUATIONS,
    data=(),
    minutes=0.01,
    text="One mark for each published number; the grey band is 5 % to either side of equality.",
)
def agreement(context: Context) -> pd.DataFrame:
    """One row for each published number: published, ours, difference in per cent, and a reason if it exceeds 5 %."""
    rows = pd.concat([load(name, context.folder) for name in EVALUATIONS], ignore_index=True)
    ours = rows[rows["source"] == OURS].set_index(KEYS)["value"].rename("ours")
    published = rows[rows["source"].isin([SIMULATION, PROTOTYPE])].rename(columns={"value": "published"})
    table = published.join(ours, on=KEYS, how="inner")
    table["difference_percent"] = 100 * (table["ours"] / table["published"] - 1)
    simulated = table[table["source"] == SIMULATION].set_index(KEYS)["published"].to_dict()
    table["reason"] = [_reason(row, simulated.get(tuple(row[k] for k in KEYS))) for row in table.to_dict("records")]
    return table[[*KEYS, "source", "published", "ours", "difference_percent", "reason"]]


def _reason(row: dict[Any, Any], simulated: float | None) -> str:
    """Why a number differs by more than the tolerance, as far as known; empty if it does not.

    `simulated` is the value of the published simulation for the same run and metric, if there is one.
    """
    published, ours = float(str(row["published"])), float(str(row["ours"]))
    difference = ours / published - 1
    if abs(difference) * 100 <= TOLERANCE_PERCENT:
        return ""
    metric, section = str(row["metric"]), str(row["section"])  # pandas reads a section as a number
    if row["source"] == SIMULATION:
        half = HALF_DIGIT["tokens_per_s" if metric.endswith("tokens_per_s") else "_s"]
        beyond = abs(ours - published) - half
        if beyond <= 0:
            return "ours rounds to the published digits"
        return (
            f"printed with two decimals: ours is {beyond:.2g} beyond what rounds to them" if beyond < half else UNKNOWN
        )
    if simulated is not None:
        theirs = simulated / published - 1
        # The published simulation is on the same side, at least half as far off: the difference is that between a
        # simulation and real machines.
        known = theirs * difference > 0 and abs(theirs) > 0.5 * abs(difference)
        return f"the published simulation is off by {100 * theirs:+.0f} % here too" if known else UNKNOWN
    if section == "6.7" and row["method"] != "helix":
        return "no simulation published; how many requests the prototype had in flight is not either: here 180"
    if section in {"6.6", "6.7"}:
        return "no simulation published; that it ran on single24 is inferred from the size of the number"
    return "no simulation published: an offline latency, which grows with how full the prototype was kept"
