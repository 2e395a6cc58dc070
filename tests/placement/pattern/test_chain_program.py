"""Chains of regions: wide stages stand at the crossings, and each region is passed once."""

from itertools import pairwise

import pytest

from helix_kit.placement.groups import Group
from helix_kit.placement.pattern.chain_program import ChainTask, choose_chain
from helix_kit.placement.pattern.stages import PatternStage
from helix_kit.placement.solvers import SolverSettings

FLOW = 40.0
FAST = {region: Group("fast", region, tuple(f"fast-{region}-{i}" for i in range(2)), (40.0, 40.0)) for region in "abc"}
SLOW = {region: Group("slow", region, tuple(f"slow-{region}-{i}" for i in range(8)), (10.0,)) for region in "abc"}


def stages_of(groups):
    """Of each region a narrow stage (one node, two layers) and a wide one (four nodes, one layer)."""
    narrow = [PatternStage.of(2, [((g, 2),)], groups) for g, group in enumerate(groups) if group.kind == "fast"]
    wide = [PatternStage.of(1, [((g, 1),)] * 4, groups) for g, group in enumerate(groups) if group.kind == "slow"]
    return narrow + wide


@pytest.mark.parametrize("solver", ["highs", "glpk"])
@pytest.mark.parametrize(("regions", "num_layers"), [("ab", 8), ("abc", 14)])
def test_stages_at_crossings_are_wide(solver, regions, num_layers):
    """A link carries a sixteenth of the flow: both stages at a crossing have four nodes. Layers need every region."""
    groups = [kind[region] for region in regions for kind in (FAST, SLOW)]
    task = ChainTask(groups, [i // 2 for i in range(len(groups))], num_layers, FLOW, link_share=1 / 16)
    chain = choose_chain(task, stages_of(groups), SolverSettings(solver))
    assert sum(stage.length for region in chain for stage in region) >= num_layers
    places = [{groups[stage.any_group].region for stage in region} for region in chain]
    assert sorted(r for place in places for r in place) == list(regions)
    for before, after in pairwise(chain):
        assert before[-1].widest_share(FLOW) == pytest.approx(0.25)
        assert after[0].widest_share(FLOW) == pytest.approx(0.25)
    # A region in the middle is entered and left by two different stages.
    assert all(len(region) >= 2 for region in chain[1:-1])


def test_links_that_carry_all_ask_for_no_width():
    groups = [FAST["a"], FAST["b"]]
    stages = [PatternStage.of(2, [((g, 2),)], groups) for g in range(2)]
    task = ChainTask(groups, [0, 1], 8, FLOW, link_share=1.0)
    assert [len(region) for region in choose_chain(task, stages, SolverSettings())] == [2, 2]


def test_no_chain_where_no_stage_is_wide_enough():
    groups = [FAST["a"], FAST["b"]]
    stages = [PatternStage.of(2, [((g, 2),)], groups) for g in range(2)]
    assert choose_chain(ChainTask(groups, [0, 1], 8, FLOW, link_share=1 / 16), stages, SolverSettings()) is None


def test_one_region_that_holds_the_model_needs_no_crossing():
    groups = [FAST["a"], FAST["b"]]
    stages = [PatternStage.of(2, [((g, 2),)], groups) for g in range(2)]
    chain = choose_chain(ChainTask(groups, [0, 1], 4, FLOW, link_share=1 / 16), stages, SolverSettings())
    assert [[s.length for s in region] for region in chain] == [[2, 2]]
