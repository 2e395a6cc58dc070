"""Chains of regions with a split of its own at each crossing."""

from itertools import pairwise

import numpy as np
import pytest

from helix_kit.placement.groups import Group
from helix_kit.placement.pattern.chain_program import ChainTask, choose_chain
from helix_kit.placement.pattern.linked_chain import choose_linked_chain
from helix_kit.placement.pattern.stages import PatternStage
from helix_kit.placement.solvers import SolverSettings

FLOW = 12.0


def kind(region, size):
    return Group("L4", region, tuple(f"{region}-{i}" for i in range(size)), (FLOW / size,) * 4)


def one_stage_of_all(groups, length=1):
    return [PatternStage.of(length, [((g, length),)] * group.size, groups) for g, group in enumerate(groups)]


def products(chain):
    """What a link at each crossing is asked for, as a share of the flow."""
    return [before[-1].widest_share(FLOW) * after[0].widest_share(FLOW) for before, after in pairwise(chain)]


def test_two_lanes_beside_three_make_a_crossing():
    """A link carries a sixth of the flow: the even split asks for three lanes on both sides."""
    groups = [kind("a", 2), kind("b", 3)]
    task, stages = ChainTask(groups, [0, 1], 2, FLOW, link_share=1 / 6), one_stage_of_all(groups)
    assert choose_chain(task, stages, SolverSettings()) is None
    assert products(choose_linked_chain(task, stages, SolverSettings())) == pytest.approx([1 / 6])


@pytest.mark.parametrize("solver", ["highs", "glpk"])
def test_each_crossing_has_a_split_of_its_own(solver):
    """One lane beside four, four beside two, two beside two: a link carries a quarter of the flow."""
    groups = [kind("a", 1), kind("b", 4), kind("c", 2), kind("d", 2)]
    task, stages = ChainTask(groups, [0, 1, 2, 3], 4, FLOW, link_share=1 / 4), one_stage_of_all(groups)
    assert choose_chain(task, stages, SolverSettings(solver)) is None
    chain = choose_linked_chain(task, stages, SolverSettings(solver))
    assert [len(region) for region in chain] == [1, 1, 1, 1]
    assert max(products(chain)) <= 1 / 4 * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_it_finds_a_chain_where_the_program_of_one_split_does_and_links_carry_it(seed):
    rng = np.random.default_rng(seed)
    groups = [kind(region, int(rng.integers(2, 7))) for region in "abc"]
    tables = [PatternStage.of(k, [((g, k),)] * int(n), groups) for g in range(3) for k in (1, 2) for n in (1, 2, 3)]
    stages = [*tables, *one_stage_of_all(groups), *one_stage_of_all(groups, 2)]
    task = ChainTask(groups, [0, 1, 2], int(rng.integers(3, 8)), FLOW, link_share=float(rng.uniform(0.05, 0.6)))
    plain, linked = (choose(task, stages, SolverSettings()) for choose in (choose_chain, choose_linked_chain))
    assert plain is None or linked is not None
    if linked is not None:
        assert sum(stage.length for region in linked for stage in region) >= task.num_layers
        assert all(product <= task.link_share * (1 + 1e-8) for product in products(linked))
        used = [sum(stage.uses[g] for region in linked for stage in region) for g in range(3)]
        assert all(number <= group.size for number, group in zip(used, groups))
