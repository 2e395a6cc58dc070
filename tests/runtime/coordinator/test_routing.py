"""The flow that is solved for the workers that are left."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from helix_kit.placement.plan import Plan
from helix_kit.runtime.coordinator.routing import solve_rest
from helix_kit.runtime.weights.tiny import tiny_plan

# Two equal nodes for each half of the layers.
PLACEMENT = {"a": (0, 3), "b": (0, 3), "c": (3, 6), "d": (3, 6)}


@pytest.fixture
def without_d(tiny_llama: Path):
    """What is left of a plan, of either split, when d is lost: c carries all that a and b bring."""

    def left(split: str) -> tuple[Plan, float, float]:
        whole = tiny_plan(tiny_llama, PLACEMENT).model_copy(update={"flow_split": split})
        rest = solve_rest(whole, {node: span for node, span in PLACEMENT.items() if node != "d"})
        assert rest.flow_split == split
        assert rest.flow_tokens_per_s == pytest.approx(whole.node_throughput_tokens_per_s["c"], abs=1e-3)
        return rest, rest.flow_edges.get(("coordinator", "a"), 0.0), rest.flow_edges.get(("coordinator", "b"), 0.0)

    return left


def test_what_is_left_of_a_balanced_plan_is_balanced(without_d) -> None:
    """a and b are alike, so each gets half of the requests, though either could take them all."""
    rest, a, b = without_d("balanced")
    assert a == pytest.approx(rest.flow_tokens_per_s / 2, rel=1e-3) == pytest.approx(b, rel=1e-3)


def test_what_is_left_of_any_maximum_flow_is_the_first_met(without_d) -> None:
    rest, a, b = without_d("any")
    assert sorted((a, b)) == [0.0, rest.flow_tokens_per_s]
