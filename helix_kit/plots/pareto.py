"""The Pareto front of a served plan: throughput against decode latency, stages, prompt latency, the chosen one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from helix_kit._wording import agreeing, count_text
from helix_kit.errors import InputError
from helix_kit.plots.theme import CUT_COLOUR, THEMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from helix_kit.placement.plan import Plan
    from helix_kit.placement.served import Served, ServedRow

SIZE_IN = (7.2, 4.6)
MIN_CROWDED = 12
"""From this many points on, only the ends of the front and the chosen plan are labelled with their stages."""


def plot_pareto(plan: Plan, axes: Axes | None = None) -> Figure:
    """Draw the Pareto front of a served plan: decode throughput against decode latency; the chosen plan is marked.

    A point is drawn if no other plan has both more throughput and less decode latency. The search also keeps plans for
    a lower prompt latency or fewer stages. A note says how many of them are left out. The colour is the mean prompt
    latency.

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
    from helix_kit.plots.notebook_figure import NotebookFigure

    if plan.served is None or not plan.served.pareto:
        raise InputError(
            "expected a plan of objective served, which has a front",
            field="plan.objective",
            value=plan.objective,
        )
    if axes is None:
        axes = NotebookFigure(figsize=SIZE_IN, layout="constrained").subplots()
    chosen = _chosen_row(plan, plan.served)
    rows = front_in_two(plan.served.pareto)
    axes.plot(
        [row.decode_latency_s for row in rows], [row.decode_tokens_per_s for row in rows],
        color=THEMES["light"]["grid"], linewidth=1.5, zorder=2,
    )  # fmt: skip
    drawn = rows if chosen is None or chosen in rows else [*rows, chosen]
    points = axes.scatter(
        [row.decode_latency_s for row in drawn], [row.decode_tokens_per_s for row in drawn],
        c=[row.prompt_latency_s for row in drawn], cmap="viridis", s=55, edgecolors="white", zorder=3,
    )  # fmt: skip
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.colorbar(points, ax=axes, label="mean prompt latency (s)")
    if chosen is not None:
        _mark(axes, chosen)
    ends = (rows[0], rows[-1])
    for row in rows:
        if row is not chosen and (len(rows) < MIN_CROWDED or row in ends):
            axes.annotate(
                f"{row.stages}", (row.decode_latency_s, row.decode_tokens_per_s), (5, 5),
                textcoords="offset points", fontsize=8,
            )  # fmt: skip
    _label(axes, plan, hidden=len(plan.served.pareto) - len(drawn))
    return figure


def front_in_two(rows: Sequence[ServedRow]) -> list[ServedRow]:
    """The rows that no other beats in both decode throughput and decode latency, the least latency first.

    >>> from helix_kit.placement.served import ServedRow
    >>> fast, slow = (ServedRow(decode_tokens_per_s=v, decode_latency_s=s) for v, s in ((300, 0.9), (200, 0.5)))
    >>> dominated = ServedRow(decode_tokens_per_s=250, decode_latency_s=0.95, prompt_latency_s=0.1)
    >>> front_in_two([fast, dominated, slow]) == [slow, fast]
    True
    """
    front: list[ServedRow] = []
    for row in sorted(rows, key=lambda row: (row.decode_latency_s, -row.decode_tokens_per_s)):
        if not front or row.decode_tokens_per_s > front[-1].decode_tokens_per_s:
            front.append(row)
    return front


def _mark(axes: Axes, chosen: ServedRow) -> None:
    """Ring the chosen plan, and write its stages beside it."""
    at = (chosen.decode_latency_s, chosen.decode_tokens_per_s)
    axes.scatter(*at, s=190, facecolors="none", edgecolors=CUT_COLOUR, linewidths=1.8, zorder=4)
    axes.annotate(
        f"chosen, {chosen.stages} stages", at, (8, -14), textcoords="offset points", fontsize=8, color=CUT_COLOUR
    )


def _label(axes: Axes, plan: Plan, hidden: int) -> None:
    """Title, axes, and how the points were measured and which are left out."""
    assert plan.served is not None
    notes = ["number: stages of the deepest pipeline"]
    if hidden:
        are = agreeing(hidden, "is", "are")
        notes.append(
            f"{count_text(hidden, 'plan')} {are} not drawn: beaten in both, kept for prompt latency or fewer stages"
        )
    axes.set(
        xlabel="mean decode latency (s)",
        ylabel=f"decode throughput (tokens/s, {plan.served.mode}, {plan.served.execution} rules)",
        title=f"{plan.model.name} on {plan.cluster.name}: what plans of the front serve\n" + "\n".join(notes),
    )
    axes.title.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)
    axes.margins(0.15)
    axes.grid(color=THEMES["light"]["grid"])
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _chosen_row(plan: Plan, served: Served) -> ServedRow | None:
    """The row of the plan itself; None if its latency limits made the search choose a plan off the front."""
    for row in served.pareto:
        if row.placement == plan.placement and row.decode_tokens_per_s == served.decode_tokens_per_s:
            return row
    return None
