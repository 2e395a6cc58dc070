"""The Pareto front of a served plan: throughput against decode latency, the stages of each plan, the chosen one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helix_kit.errors import InputError
from helix_kit.plots.theme import CUT_COLOUR, THEMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from helix_kit.placement.plan import Plan
    from helix_kit.placement.served import Served

SIZE_IN = (6.4, 4.2)
MIN_CROWDED = 12
"""From this many points on, only the ends of the front and the chosen plan are labelled with their stages."""


def plot_pareto(plan: Plan, axes: Axes | None = None) -> Figure:
    """Draw the Pareto front of a served plan, one point for each plan of the front; the chosen plan is marked.

    Parameters
    ----------
    plan
        A plan of objective ``served``.
    axes
        Where it is drawn; None: in a new figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    InputError
        For a plan of objective ``flow``, which has no front.

    Examples
    --------
    >>> import helix_kit as hk
    >>> plan = hk.plan("single24", "llama2-70b", objective="served")             # doctest: +SKIP
    >>> plot_pareto(plan).savefig("front.png")                                   # doctest: +SKIP
    """
    import pandas as pd
    import seaborn as sns
    from matplotlib.figure import Figure

    if plan.served is None or not plan.served.pareto:
        raise InputError(
            "expected a plan of objective served, which has a front",
            field="plan.objective",
            value=plan.objective,
        )
    if axes is None:
        axes = Figure(figsize=SIZE_IN, layout="constrained").subplots()
    rows = plan.served.pareto
    table = pd.DataFrame(
        [(row.decode_latency_s, row.decode_tokens_per_s, row.stages) for row in rows],
        columns=["decode_latency_s", "decode_tokens_per_s", "stages"],
    )
    sns.scatterplot(
        table, x="decode_latency_s", y="decode_tokens_per_s", hue="stages", palette="viridis", s=55, legend=False,
        edgecolor="white", ax=axes, zorder=3,
    )  # fmt: skip
    chosen = _chosen_row(plan, plan.served)
    if chosen is not None:
        x, y, stages = table.iloc[chosen]
        axes.scatter(x, y, s=190, facecolors="none", edgecolors=CUT_COLOUR, linewidths=1.8, zorder=4)
        axes.annotate(
            f"chosen, {stages:.0f} stages", (x, y), (8, -14), textcoords="offset points", fontsize=8, color=CUT_COLOUR
        )
    ends = {int(table["decode_tokens_per_s"].argmax()), int(table["decode_latency_s"].argmin())}
    for index, (x, y, stages) in enumerate(table.itertuples(index=False)):
        if index != chosen and (len(table) < MIN_CROWDED or index in ends):
            axes.annotate(f"{stages:.0f}", (x, y), (5, 5), textcoords="offset points", fontsize=8)
    axes.set(
        xlabel="mean decode latency (s)",
        ylabel="decode throughput (tokens/s)",
        title=f"{plan.model.name} on {plan.cluster.name}: what plans of the front serve (number: stages)",
    )
    axes.title.set_fontsize(10)
    axes.margins(0.12)
    axes.grid(color=THEMES["light"]["grid"])
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def _chosen_row(plan: Plan, served: Served) -> int | None:
    """The row of the plan itself; None if its latency limits made the search choose a plan off the front."""
    for index, row in enumerate(served.pareto):
        if row.placement == plan.placement and row.decode_tokens_per_s == served.decode_tokens_per_s:
            return index
    return None
