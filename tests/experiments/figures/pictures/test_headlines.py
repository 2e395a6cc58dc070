"""What headlines claim holds to the digit: limits are rounded away from the claim, and follow from the table."""

import re

import pandas as pd
import pytest
from committed import FIGURES

from helix_kit.experiments.figures.pictures.beyond import draw_scaling
from helix_kit.experiments.figures.pictures.planning import draw_methods
from helix_kit.experiments.figures.pictures.solvers import draw_convergence, draw_quality
from helix_kit.experiments.machinery.files import load


def text_of(figure):
    return figure.get_suptitle().replace("\n", " ")


@pytest.mark.parametrize(("gap", "stated"), [(0.0064, 0.64), (0.00639323, 0.64), (0.00641, 0.65), (0.0123, 1.3)])
def test_no_plan_is_further_from_its_bound_than_the_headline_says(gap, stated):
    table = pd.DataFrame({"nodes": [24, 50], "gap": [gap, gap / 10]})
    table.attrs = {"24": 1.0, "50": 2.0}
    text = text_of(draw_scaling(table))
    assert float(re.search(r"more than ([\d.]+) %", text).group(1)) == stated
    committed = load("scaling", FIGURES)
    said = float(re.search(r"more than ([\d.]+) %", text_of(draw_scaling(committed))).group(1))
    assert 100 * committed["gap"].max() <= said < 100 * committed["gap"].max() + 0.1


def test_value_and_bound_come_as_near_as_the_headline_says_and_as_soon():
    table = load("convergence", FIGURES)
    text = text_of(draw_convergence(table))
    seconds, gap = (
        float(number) for number in re.search(r"within ([\d.]+) s with a gap of at most ([\d.]+) %", text).groups()
    )
    ours = table[table["solver"] == "pattern program (ours)"]
    gaps = 100 * (ours["bound_tokens_per_s"] / ours["flow_tokens_per_s"] - 1)
    assert gaps.max() <= gap < gaps.max() + 0.1
    ends = [rows["pattern program (ours)"][-1][0] for rows in table.attrs.values()]
    assert max(ends) <= seconds < max(ends) * 1.1


def test_a_method_that_passes_the_bound_says_why():
    table = load("placement-methods", FIGURES)

    def labels(of):
        [legend] = draw_methods(of).legends
        return [text.get_text() for text in legend.get_texts()]

    assert any("over 100 %: overfills memory" in label for label in labels(table))
    assert not any("overfills" in label for label in labels(table[table["cluster"] == "single24"]))
    assert "improves on its start in 0 of 5 cases" in text_of(draw_methods(table))


def test_a_solver_that_finds_no_plan_has_no_bar():
    """Its bar used to be the plan of the heuristic that it started from."""
    rows = {
        "method": ["Gurobi (published)", "pattern program, HiGHS", "Swarm"],
        "flow_tokens_per_s": [200.0, 200.0, 150.0],
    }
    table = pd.DataFrame(rows).assign(share_of_optimum=[1.0, 0.9999996, 0.75])
    table.attrs = {
        "paper's program, GLPK alone": [[60.0, 0.0, None]],
        "paper's program, HiGHS alone": [[60.0, 50.0, 900.0]],
    }
    figure = draw_quality(table)
    [axes] = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["Gurobi (published)", *table.attrs, "pattern program, HiGHS", "Swarm"]
    assert [round(bar.get_width(), 3) for bar in axes.patches] == [100.0, 0.0, 25.0, 100.0, 75.0]
    written = [text.get_text() for text in axes.texts]
    assert written[1] == "0.0 %: no plan after 60 s" and written[2] == "25.0 % after 60 s, bound 900 tokens/s"
    assert "reaches Gurobi's optimum with either" in text_of(figure) and "they reach 0 to 25 %" in text_of(figure)
