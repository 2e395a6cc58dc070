"""Bars of a table from `helix_kit.analysis.compare`: throughput, prompt and decode latency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helix_kit.plots.theme import KIND_COLOURS, THEMES

if TYPE_CHECKING:
    import pandas as pd

PANELS = (
    ("decode_tokens_per_s", "decode throughput, tokens/s"),
    ("prompt_s", "prompt latency, average s"),
    ("decode_s", "decode latency, average s"),
)
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")


def plot_comparison(table: pd.DataFrame) -> Any:
    """One panel a measure; groups are workload and policy, bars are plans. Runs without a plan are left out."""
    from matplotlib.figure import Figure

    shown = table[table["decode_tokens_per_s"].notna()]
    plans = list(dict.fromkeys(table["plan"]))
    groups = list(dict.fromkeys(zip(shown["workload"], shown["policy"], strict=True)))
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    panels = figure.subplots(1, len(PANELS))
    width = 0.8 / max(1, len(plans))
    for axes, (column, title) in zip(panels, PANELS, strict=True):
        for index, plan in enumerate(plans):
            mine = shown[shown["plan"] == plan].set_index(["workload", "policy"])[column]
            at = [i for i, group in enumerate(groups) if group in mine.index]
            axes.bar(
                [i + (index - (len(plans) - 1) / 2) * width for i in at],
                [mine.loc[groups[i]] for i in at],
                width,
                label=plan,
                color=KIND_COLOURS[index % len(KIND_COLOURS)],
                hatch=HATCHES[index % len(HATCHES)],
                edgecolor="white",
                linewidth=0.5,
            )
        axes.set_title(title, fontsize=10)
        axes.set_xticks(range(len(groups)), [f"{workload}\n{policy}" for workload, policy in groups], fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=THEMES["light"]["grid"])
        axes.set_axisbelow(True)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False, fontsize=9
    )
    return figure
