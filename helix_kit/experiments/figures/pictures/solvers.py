"""Solvers: problem sizes, quality, ablations, value and bound over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from helix_kit.experiments.figures.pictures.looks import (
    EDGE,
    METHODS,
    MODELS,
    PLACES,
    SMALLEST_PT,
    at_least_text,
    at_most_text,
    finish_axes,
    hatched_patch,
    headline,
    label_above,
    legend_below,
    legend_of,
    new_figure,
    range_text,
)
from helix_kit.plots.bars import HATCHES, rows_of
from helix_kit.plots.theme import KIND_COLOURS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes

PUBLISHED, OURS = (KIND_COLOURS[4], HATCHES[0]), (KIND_COLOURS[0], HATCHES[2])


def draw_sizes(table: pd.DataFrame) -> Figure:
    """Constraints and variables, ours and published."""
    figure = new_figure(2.9)
    cases = [f"{row.cluster}\n{row.links_per_node} links" for row in rows_of(table)]
    for axes, what in zip(figure.subplots(1, 2), ("constraints", "variables"), strict=True):
        pairs = ((f"{what}_published", "published solver log", PUBLISHED), (what, "built here", OURS))
        for index, (column, label, (colour, hatch)) in enumerate(pairs):
            x = np.arange(len(cases)) + (index - 0.5) * 0.4
            bars = axes.bar(x, table[column], 0.38, color=colour, hatch=hatch, **EDGE, label=label)
            axes.bar_label(bars, fmt="{:,.0f}", fontsize=SMALLEST_PT, padding=2, rotation=90)
        axes.set_xticks(range(len(cases)), cases)
        axes.set(ylabel=f"number of {what}")
        axes.margins(y=0.2)
        finish_axes(axes)
        axes.tick_params(axis="x", labelsize=SMALLEST_PT)
    legend_of(figure, axes, 2)
    sizes = table.pivot(index="cluster", columns="links_per_node", values="constraints")
    sizes.columns = [str(c) for c in sizes.columns]
    left = (100 * sizes["12"] / sizes["all"]).dropna()
    same = (table["constraints"] == table["constraints_published"]).all()
    same &= (table["variables"] == table["variables_published"]).all()
    text = f"Pruning to 12 links a machine leaves {range_text(left, '{:.0f}')} % of the paper's program"
    headline(figure, text + (", which is built here to its published size" if same else ""))
    return figure


def draw_quality(table: pd.DataFrame) -> Figure:
    """Flow as a share of the proven optimum, one bar for each method; measured ones come after the published one."""
    optimum = float(table["flow_tokens_per_s"].iloc[0])
    shares = dict(zip(table["method"], 100 * table["share_of_optimum"], strict=True))
    measured = {name: rows[0] for name, rows in table.attrs.items() if name not in shares}
    alone = {name: 100 * flow / optimum for name, (_, flow, _) in measured.items()}
    first, *others = shares
    order = [first, *alone, *others]
    shares |= alone
    figure = new_figure(2.8)
    axes = figure.subplots()
    looks = {"Gurobi": PUBLISHED, "paper's program": OURS, "pattern": (KIND_COLOURS[2], HATCHES[4])}
    for y, method in enumerate(order):
        value = shares[method]
        # All heuristics have one grey, since the picture is about the programs.
        colour, hatch = next((look for name, look in looks.items() if name in method), ("0.6", HATCHES[3]))
        axes.barh(y, value, 0.7, color=colour, hatch=hatch, **EDGE)
        # Published separate pipelines put more layers on some machines than fit into their memory.
        note = ": overfills memory" if value > 100.1 else ""
        if method in measured:
            seconds, flow, bound = measured[method]
            note = f" after {seconds:.0f} s" + (f", bound {bound:,.0f} tokens/s" if bound else "")
            note = note if flow > 0 else f": no plan{note}"
        axes.text(
            max(value, 100) + 0.9 if value > 99 else value + 0.9, y, f"{value:.1f} %{note}", va="center",
            fontsize=SMALLEST_PT,
        )  # fmt: skip
    axes.set_yticks(range(len(order)), order)
    axes.invert_yaxis()
    axes.axvline(100, color="0.2", lw=0.8)
    axes.set(xlabel=f"max flow, % of the proven optimum ({optimum:.3f} tokens/s)", xlim=(0, 140))
    axes.set_xticks(range(0, 101, 20))
    finish_axes(axes)
    axes.grid(visible=False, axis="y")
    best = 100 * table[table["method"].str.startswith("pattern")]["share_of_optimum"].min()
    # Flows are whole milli-tokens/s, and the published optimum has more digits.
    reached = "Gurobi's optimum" if best > 99.999 else f"{at_least_text(best)} % of Gurobi's optimum"
    text = f"Ten machines: our pattern program reaches {reached} with either open solver"
    if alone:
        text += f"; on the paper's program they reach {range_text(alone.values(), '{:.0f}')} % by themselves"
    headline(figure, text)
    return figure


VARIANTS = {
    "pruned, with initial values": "Gurobi,\npruned,\ninitial values",
    "not pruned": "Gurobi,\nnot pruned,\ninitial values",
    "no initial values": "Gurobi,\npruned,\nno initial values",
    "pattern program, all links": "our program,\nall links",
}


def draw_ablations(table: pd.DataFrame) -> Figure:
    """For each cluster: the flow of each variant with Gurobi's time to find it, and decode throughput."""
    figure = new_figure(5.0)
    grid = figure.subplots(2, 2)
    gains = []
    for column, cluster in enumerate(dict.fromkeys(table["cluster"])):
        part = table[table["cluster"] == cluster].set_index("variant")
        top, bottom = grid[0][column], grid[1][column]
        shown = [v for v in VARIANTS if v in part.index]
        for x, variant in enumerate(shown):
            flow, seconds = part.loc[variant, "flow_tokens_per_s"], part.loc[variant, "seconds_to_flow"]
            look = METHODS["pattern"].bar() if variant.startswith("pattern") else METHODS["helix"].bar()
            if not variant.startswith("pattern"):
                look |= {"color": PUBLISHED[0], "hatch": PUBLISHED[1]}
            top.bar(x, flow, 0.6, **look)
            # Zero seconds: the solver found nothing better than the plan that it started from.
            after = "" if np.isnan(seconds) else f"\nafter {seconds:,.0f} s" if seconds else "\nfrom the start"
            text = f"{flow:,.0f}{after}"
            label_above(top, x, flow, text, points=2)
        top.set_xticks(range(len(shown)), [VARIANTS[v] for v in shown])
        top.set(title=f"{PLACES[cluster]}: max flow", ylabel="max flow, tokens/s")
        top.margins(y=0.24)
        served = [v for v in shown if not np.isnan(part.loc[v, "decode_ours"])]
        _served(bottom, part, served)
        bottom.set(title=f"{PLACES[cluster]}: served", ylabel="decode throughput, tokens/s")
        for axes in (top, bottom):
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            finish_axes(axes)
            axes.tick_params(axis="x", labelsize=SMALLEST_PT)
        gains.append(part.loc["pruned, with initial values", "decode_ours"] / part.loc["not pruned", "decode_ours"])
    handles, _ = bottom.get_legend_handles_labels()
    ours = METHODS["pattern"]
    green = hatched_patch(ours.colour, ours.hatch, "our plan, our simulator")
    legend_below(figure, 3, handles=[*handles, green])
    headline(
        figure,
        f"With pruning, Gurobi's plans serve {range_text(gains)} times as much as without; our program finds the "
        "largest flow without pruning or initial values (a larger flow does not always serve more)",
    )
    return figure


def _served(axes: Axes, part: pd.DataFrame, variants: list[str]) -> None:
    pairs = (("decode_published", "published simulation", PUBLISHED), ("decode_ours", "our simulator", OURS))
    for x, variant in enumerate(variants):
        values: dict[Any, Any] = part.loc[variant].to_dict()
        found = [(p, float(values[p[0]])) for p in pairs if not np.isnan(values[p[0]])]
        for index, ((_, label, (colour, hatch)), value) in enumerate(found):
            look = METHODS["pattern"] if variant.startswith("pattern") else None
            at = x + (index - (len(found) - 1) / 2) * 0.36
            bar = axes.bar(
                at, value, 0.34, color=look.colour if look else colour, hatch=look.hatch if look else hatch,
                **EDGE,
                label=label if x == 0 else None,
            )  # fmt: skip
            axes.bar_label(bar, fmt="%.0f", fontsize=SMALLEST_PT, padding=1)
    axes.set_xticks(range(len(variants)), [VARIANTS[v] for v in variants])
    axes.margins(y=0.15)


SOLVERS = {
    "Gurobi (published)": ("paper's program, Gurobi (published)", KIND_COLOURS[1], "s"),
    "GLPK": ("paper's program, GLPK", KIND_COLOURS[3], "^"),
    "HiGHS": ("paper's program, HiGHS", KIND_COLOURS[0], "v"),
    "pattern program (ours)": ("our pattern program, HiGHS", KIND_COLOURS[2], "o"),
}
EARLIEST_S = 0.01
"""Start of the logarithmic axis. Earlier values and bounds are drawn at this time."""


def draw_convergence(table: pd.DataFrame) -> Figure:
    """One panel for each cluster: value and bound over seconds, both axes logarithmic."""
    clusters = list(dict.fromkeys(table["cluster"]))
    figure = new_figure(5.0)
    longest = []
    end_s = float(table["seconds"].max())
    for axes, cluster in zip(figure.subplots(2, 2, sharex=True).flat, clusters, strict=False):
        part = table[table["cluster"] == cluster]
        logged = part[part["seconds"].notna() & (part["flow_tokens_per_s"] > 1)]  # the first plans carry almost nothing
        columns = ["seconds", "flow_tokens_per_s", "bound_tokens_per_s"]
        curves = {"Gurobi (published)": logged[columns].to_numpy().tolist(), **table.attrs.get(cluster, {})}
        for name, (label, colour, mark) in SOLVERS.items():
            if curves.get(name):
                _curve(axes, curves[name], label, colour, mark, until=end_s)
        if curves.get("pattern program (ours)"):
            longest.append(max(row[0] for row in curves["pattern program (ours)"]))
        model = MODELS[part["model"].iloc[0]]
        axes.set(xscale="log", yscale="log", title=f"{PLACES[cluster]}, {model}", ylabel="tokens/s")
        axes.set_xlabel("seconds" if axes in figure.axes[2:] else "")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.minorticks_off()
        finish_axes(axes)
    handles, _ = axes.get_legend_handles_labels()
    kinds = [Line2D([], [], color="0.3", ls=s, lw=1.2, label=n) for n, s in (("value", "-"), ("proven bound", "--"))]
    legend_below(figure, 3, handles=[*handles, *kinds])
    headline(figure, _convergence_text(table, longest))
    return figure


def _convergence_text(table: pd.DataFrame, seconds: Sequence[float]) -> str:
    """How near value and bound come, and when: rounded so that the sentence holds for every cluster."""
    ours = table[table["solver"] == "pattern program (ours)"]
    gaps = 100 * (ours["bound_tokens_per_s"] / ours["flow_tokens_per_s"] - 1)
    ours_text = f"Our program ends{f' within {at_most_text(max(seconds))} s' if seconds else ''} with a gap of at most "
    ours_text += f"{at_most_text(gaps.max())} % on every cluster"
    last = table[table["solver"] == "Gurobi (published)"].groupby("cluster").tail(1)
    met = last[last["bound_tokens_per_s"] <= (1 + gaps.max() / 100) * last["flow_tokens_per_s"]]
    where = ", ".join(f"on {PLACES[row.cluster]} after {row.seconds:,.0f} s" for row in rows_of(met))
    return f"{ours_text}; Gurobi on the paper's program comes as near {f'only {where}' if where else 'on none'}"


def _curve(axes: Axes, rows: list[list[float]], label: str, colour: str, mark: str, *, until: float) -> None:
    """Value (solid, with marks) and bound (dashed) as steps; each starts when it is first known."""
    width = 2.8 if mark == "^" else 1.2  # the lower one of two curves that often coincide
    points = np.array(rows, dtype=float).reshape(-1, 3)
    seconds = np.maximum(points[:, 0], EARLIEST_S)
    best = np.where(points[:, 1] > 1, points[:, 1], np.nan)
    axes.step(seconds, points[:, 2], "--", color=colour, lw=1.2, where="post")
    if not np.isnan(points[-1, 2]):
        # HiGHS reports its bound only at the end: an open mark shows the last bound of each curve.
        axes.plot(seconds[-1], points[-1, 2], mark, mfc="white", mec=colour, ms=4)
    first = int(np.argmax(~np.isnan(best))) if not np.isnan(best).all() else 0
    axes.step(seconds, best, "-", color=colour, lw=width, where="post", marker=mark, ms=1.8 + width, label=label)
    if not np.isnan(best).all() and first == len(best) - 1:
        # The only plan came at the end of the search, when the bound had come down to it. The line says that it stays.
        axes.plot(seconds[-1], best[-1], mark, color=colour, ms=5)
        axes.plot([seconds[-1], until], [best[-1], best[-1]], "-", color=colour, lw=width)
