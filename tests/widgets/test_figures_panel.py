"""The table of key figures: two columns where two plans are compared, simulated numbers in the background."""

from __future__ import annotations

import pytest

from helix_kit.analysis import key_figures
from helix_kit.widgets.figures_panel import FiguresPanel, rows_of


def test_changes_are_against_the_plan_that_is_compared_with(plan):
    worse = plan.rearranged({**plan.placement, "T4-0": (22, 30)})
    panel = FiguresPanel(("solved", "shown"), simulate=False)
    panel.show(worse, plan)
    change = worse.flow_tokens_per_s / plan.flow_tokens_per_s - 1
    assert change < 0 and f"({change:+.1%})" in panel.text
    assert "<b>solved</b>" in panel.value and "<b>shown</b>" in panel.value
    panel.show(plan, plan)
    assert "%)" not in panel.text.splitlines()[0] and "<b>solved</b>" not in panel.value


def test_simulated_figures_follow_and_are_the_analysis_own(plan):
    panel = FiguresPanel(("solved", "shown"))
    panel.show(plan)
    assert "simulating" in panel.text
    assert panel.wait(60)
    expected = key_figures(plan)
    assert panel.figures(plan) == expected
    assert f"decoded under full load, tokens/s: {expected.decode_tokens_per_s:,.0f}" in panel.text
    assert "simulating" not in panel.text


def test_only_the_last_of_many_plans_is_simulated(plan, monkeypatch):
    from helix_kit.widgets import figures_panel

    asked = []
    monkeypatch.setattr(figures_panel, "key_figures", lambda p, simulated=True: asked.append(simulated) or real(p))
    real = lambda p: key_figures(p, simulated=False)  # noqa: E731
    panel = FiguresPanel(("solved", "shown"))
    for last in range(23, 30):
        panel.show(plan.rearranged({**plan.placement, "T4-0": (18, last)}))
    assert panel.wait(60) and asked.count(True) == 1


def test_a_failing_simulation_is_shown(plan, monkeypatch):
    from helix_kit.widgets import figures_panel

    def fail(shown, simulated=True):
        if simulated:
            raise RuntimeError("no such thing")
        return key_figures(shown, simulated=False)

    monkeypatch.setattr(figures_panel, "key_figures", fail)
    panel = FiguresPanel(("solved", "shown"))
    panel.show(plan)
    assert panel.wait(60) and "RuntimeError: no such thing" in panel.text


def test_prices_and_kv_are_listed(plan):
    figures = key_figures(plan, simulated=False)
    texts = dict(rows_of(figures))
    assert texts["requests that fit in the KV caches"] == f"{figures.kv_requests:,}"
    assert texts["machines in the deepest pipeline"] == str(max(len(stages) for stages, _ in plan.pipelines))
    assert texts["cost of the machines in use, $/h"] == (
        f"{figures.usd_per_hour:,.2f}" if figures.usd_per_hour is not None else "no price for V100-16G, A10G, T4"
    )


def test_energy_is_what_the_cost_report_says(plan):
    from helix_kit.analysis import cost

    joules = cost(plan).joules_per_token
    texts = dict(rows_of(key_figures(plan, simulated=False)))
    name = "energy at the full flow, J per token (estimate)"
    assert joules is not None and float(texts[name]) == pytest.approx(joules, rel=5e-3)
