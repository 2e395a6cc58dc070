"""The key figures of a plan beside those of the plan that it is compared with."""

from __future__ import annotations

import html
from threading import Event

from helix_kit.analysis.key_figures import KeyFigures, key_figures, window_s
from helix_kit.placement.plan import Plan
from helix_kit.plots.formatting import format_number, format_percent
from helix_kit.widgets.background import Background
from helix_kit.widgets.messages import Message, error_text
from helix_kit.widgets.visits import remembered

PAUSE_S = 0.4
"""Seconds without another plan before a simulation starts: while a slider moves, none does."""
PENDING = "simulating ..."
Row = tuple[str, str]


class FiguresPanel(Message):
    """A table of key figures. The simulated ones follow in the background.

    Parameters
    ----------
    names
        What the plan that is compared with is called, and what the shown plan is called.
    simulate
        Whether to simulate.

    Examples
    --------
    >>> panel = FiguresPanel(("start", "edited"), simulate=False)
    >>> panel.text
    ''
    """

    role = "note"
    """Not announced: a slider changes the figures many times a second."""

    def __init__(self, names: tuple[str, str], *, simulate: bool = True) -> None:
        super().__init__()
        self._names, self._simulate = names, simulate
        self._work = Background()
        self._base: Plan | None = None
        self._measured: list[tuple[Plan, KeyFigures]] = []

    def show(self, plan: Plan, base: Plan | None = None) -> None:
        """Show the figures of `plan`, beside those of `base` where that is another plan."""
        self._base = None if base is plan else base
        missing = [p for p in (plan, self._base) if p is not None and self._known(p) is None]
        if not self._simulate or not missing:
            self._work.cancel()
            self._draw(plan)
            return
        self._draw(plan, pending=True)

        def measure(stop: Event) -> list[tuple[Plan, KeyFigures]]:
            measured: list[tuple[Plan, KeyFigures]] = []
            for missed in missing:
                if stop.wait(PAUSE_S if not measured else 0.0):
                    break
                measured.append((missed, remembered(key_figures, missed)))
            return measured

        def keep(measured: list[tuple[Plan, KeyFigures]]) -> None:
            self._measured = [*self._measured, *measured][-8:]
            self._draw(plan)

        self._work.start(measure, keep, lambda error: self._draw(plan, error=error_text(error)))

    def figures(self, plan: Plan) -> KeyFigures:
        """The figures of a plan, with the simulated ones if they are there already."""
        return self._known(plan) or key_figures(plan, simulated=False)

    def wait(self, timeout_s: float = 60.0) -> bool:
        """Wait for the simulation to end. Return False when it takes longer than `timeout_s`."""
        return self._work.wait(timeout_s)

    def _known(self, plan: Plan) -> KeyFigures | None:
        return next((figures for known, figures in reversed(self._measured) if known is plan), None)

    def _draw(self, plan: Plan, *, pending: bool = False, error: str = "") -> None:
        now = rows_of(self.figures(plan), self.figures(self._base) if self._base else None, pending=pending)
        before = rows_of(self.figures(self._base), pending=pending) if self._base else []
        self.text = "\n".join(f"{label}: {text}" for label, text in now)
        notes = [text for text in (_how(plan) if self._simulate else "", error) if text]
        if notes:
            self.text += "\n" + "\n".join(notes)
        self.value = _table(now, before, self._names, notes, self.role)


def _how(plan: Plan) -> str:
    """How the simulated figures are measured."""
    warmup_s, measured_s = window_s(plan)
    return (
        f"Simulated with the KV caches full: {measured_s:g} s after {warmup_s:g} s of warm-up, by the runtime's rules."
    )


def rows_of(figures: KeyFigures, base: KeyFigures | None = None, *, pending: bool = False) -> list[Row]:
    """Labels and texts of the figures; of the first two with the change against `base` in per cent.

    Parameters
    ----------
    figures
        The figures.
    base
        Figures to compare with.
    pending
        Whether a simulation is still running.

    Returns
    -------
    list of tuple of str
        Label and text of each row.

    Examples
    --------
    >>> rows_of(KeyFigures(108.0, 110.0), KeyFigures(1601.0, 1608.0))[0]
    ('flow, tokens/s', '108 (-93.3%)')
    """
    served, first, further = figures.decode_tokens_per_s, figures.prompt_latency_s, figures.decode_latency_s
    bound = figures.bound_tokens_per_s
    gap = (bound - figures.flow_tokens_per_s) / figures.flow_tokens_per_s if figures.flow_tokens_per_s > 0 else None
    cost = figures.usd_per_hour
    cost_text = f"no price for {', '.join(figures.unpriced)}" if cost is None else f"{cost:,.2f}"
    million = figures.usd_per_million_tokens
    joules = figures.joules_per_token
    wait = PENDING if pending else ""

    def change(now: float | None, before: float | None) -> str:
        return f" ({now / before - 1:+.1%})" if now is not None and before else ""

    rows = [
        (
            "flow, tokens/s",
            format_number(figures.flow_tokens_per_s)
            + change(figures.flow_tokens_per_s, base.flow_tokens_per_s if base else None),
        ),
        (
            "bound on any placement's flow, tokens/s",
            format_number(bound) + (f" (gap {format_percent(max(0.0, gap))})" if gap is not None else ""),
        ),
        (
            "decoded under full load, tokens/s",
            wait
            if served is None
            else format_number(served) + change(served, base.decode_tokens_per_s if base else None),
        ),
        ("to the first token, s", wait if first is None else format_number(first)),
        ("each further token, s", wait if further is None else format_number(further)),
        ("machines in the deepest pipeline", str(figures.stages)),
        ("requests that fit in the KV caches", f"{figures.kv_requests:,}"),
        ("cost of the machines in use, $/h", cost_text),
        ("cost, $ per million decoded tokens", "" if million is None else format_number(million)),
        ("energy at the full flow, J per token (estimate)", "" if joules is None else f"{joules:.3g}"),
    ]
    return [(label, text) for label, text in rows if text]


def _table(now: list[Row], before: list[Row], names: tuple[str, str], notes: list[str], role: str) -> str:
    """The figures as an HTML table, one or two columns of numbers."""
    old = dict(before)
    cell = '<td style="text-align:right;padding:0 0 0 24px">'
    heads = [*([names[0]] if before else []), names[1]]
    lines = ["<tr><td></td>" + "".join(f"{cell}<b>{html.escape(name)}</b></td>" for name in heads) + "</tr>"]
    for label, text in now:
        numbers = [*([old.get(label, "")] if before else []), text]
        lines.append(
            f"<tr><td>{html.escape(label)}</td>" + "".join(f"{cell}{html.escape(n)}</td>" for n in numbers) + "</tr>"
        )
    small = "".join(f'<div style="opacity:0.75">{html.escape(note)}</div>' for note in notes)
    return (
        f'<div class="hk-figures" role="{role}" style="line-height:1.45;color:{Message.COLOURS["info"]}">'
        f'<table style="border-collapse:collapse">{"".join(lines)}</table>{small}</div>'
    )


__all__ = ["FiguresPanel", "rows_of"]
