"""Every published number of the evaluation beside ours, the difference, and the reason as far as it is known."""

from __future__ import annotations

from typing import Any

import pandas as pd

from helix_kit.experiments.pictures.agreement import draw_agreement
from helix_kit.experiments.registry import Context, experiment, load

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
    ours = rows[rows["source"] == "ours"].set_index(KEYS)["value"].rename("ours")
    published = rows[rows["source"] != "ours"].rename(columns={"value": "published"})
    table = published.join(ours, on=KEYS, how="inner")
    table["difference_percent"] = 100 * (table["ours"] / table["published"] - 1)
    simulated = table[table["source"] == "published simulation"].set_index(KEYS)["published"].to_dict()
    table["reason"] = [_reason(row, simulated.get(tuple(row[k] for k in KEYS))) for row in table.to_dict("records")]
    return table[[*KEYS, "source", "published", "ours", "difference_percent", "reason"]]


def _reason(row: dict[Any, Any], simulated: float | None) -> str:
    """Why a number is off by more than the tolerance, as far as known; empty where it is not."""
    published, ours = float(str(row["published"])), float(str(row["ours"]))
    if abs(ours / published - 1) * 100 <= TOLERANCE_PERCENT:
        return ""
    metric = str(row["metric"])
    if row["source"] == "published simulation":
        half = ROUNDING["tokens_per_s" if metric.endswith("tokens_per_s") else "_s"]
        beyond = max(0.0, abs(ours - published) - half)
        return f"printed with few digits: {beyond:.2g} beyond its rounding" if beyond < half else "not known"
    if row["section"] == "6.7" and row["method"] != "helix":
        return "the number of requests in flight in the prototype is not published; here it is that of the simulation"
    if simulated is not None:
        return f"the published simulation is {100 * (simulated / published - 1):+.0f} % off its own prototype here"
    return "a measurement on real machines: neither simulator models their network stack, coordinator and kernels"
