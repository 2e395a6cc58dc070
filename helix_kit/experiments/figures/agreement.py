"""Every published number of the evaluation beside ours, the difference, and the reason as far as it is known."""

from __future__ import annotations

from typing import Any

import pandas as pd

from helix_kit.experiments.figures.pictures.agreement import draw_agreement
from helix_kit.experiments.machinery.files import load
from helix_kit.experiments.machinery.registry import Context, experiment
from helix_kit.experiments.figures.common.rows import OURS, PROTOTYPE, SIMULATION

EVALUATIONS = (
    "single-cluster",
    "geo-distributed",
    "high-heterogeneity",
    "placement-deep-dive",
    "scheduling-deep-dive",
)
KEYS = ["section", "setup", "model", "mode", "method", "metric"]
ROUNDING = {"tokens_per_s": 0.05, "_s": 0.005}
"""Half of the last digit that the published simulation was printed with."""
TOLERANCE_PERCENT = 5.0


@experiment(
    "agreement",
    title="Every published number of the evaluation beside ours",
    paper="Sections 6.3 to 6.7",
    draw=draw_agreement,
    needs=EVALUATIONS,
    data=(),
    minutes=0.01,
    text="One mark a published number; the band is 5 % to either side.",
)
def agreement(context: Context) -> pd.DataFrame:
    """One row a published number: published, ours, difference in per cent, and a reason where it is above 5 %."""
    rows = pd.concat([load(name, context.folder) for name in EVALUATIONS], ignore_index=True)
    ours = rows[rows["source"] == OURS].set_index(KEYS)["value"].rename("ours")
    published = rows[rows["source"].isin([SIMULATION, PROTOTYPE])].rename(columns={"value": "published"})
    table = published.join(ours, on=KEYS, how="inner")
    table["difference_percent"] = 100 * (table["ours"] / table["published"] - 1)
    simulated = table[table["source"] == "published simulation"].set_index(KEYS)["published"].to_dict()
    table["reason"] = [_reason(row, simulated.get(tuple(row[k] for k in KEYS))) for row in table.to_dict("records")]
    return table[[*KEYS, "source", "published", "ours", "difference_percent", "reason"]]


def _reason(row: dict[Any, Any], simulated: float | None) -> str:
    """Why a number is off by more than the tolerance, as far as known; empty where it is not."""
    published, ours = float(str(row["published"])), float(str(row["ours"]))
    off = ours / published - 1
    if abs(off) * 100 <= TOLERANCE_PERCENT:
        return ""
    metric, section = str(row["metric"]), str(row["section"])  # read from a table, a section is a number
    if row["source"] == SIMULATION:
        half = ROUNDING["tokens_per_s" if metric.endswith("tokens_per_s") else "_s"]
        beyond = abs(ours - published) - half
        if beyond <= 0:
            return "ours rounds to the published digits"
        return (
            f"printed with two decimals: ours is {beyond:.2g} beyond what rounds to them" if beyond < half else UNKNOWN
        )
    if simulated is not None:
        theirs = simulated / published - 1
        # A simulation that is as far off on the same side shows the distance from simulated to real machines.
        known = theirs * off > 0 and abs(theirs) > 0.5 * abs(off)
        return f"the published simulation is off by {100 * theirs:+.0f} % here too" if known else UNKNOWN
    if section == "6.7" and row["method"] != "helix":
        return "no simulation published; how many requests the prototype had in flight is not either: here 180"
    if section in {"6.6", "6.7"}:
        return "no simulation published; that it ran on single24 is inferred from the size of the number"
    return "no simulation published: an offline latency, which grows with how full the prototype was kept"


UNKNOWN = "not known"
