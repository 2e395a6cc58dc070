"""Records of the state: chains, pools, the coordinator's endpoints, and the plain tuple for compiled code."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from helix_kit.simulator.setup import build_setup
from helix_kit.simulator.state import (
    CHUNK,
    LINK,
    Curves,
    StateOwner,
    filled,
    pool,
    receiving_side,
    sending_side,
)


def test_chains_are_empty_and_other_fields_zero():
    links = filled(LINK, 3, ("head", "tail"))
    assert (links["head"] == -1).all() and (links["tail"] == -1).all()
    assert not links["bandwidth"].any() and not links["taken"].any()


@pytest.mark.parametrize("first", [0, 40])
def test_a_pool_is_one_chain_of_all_its_records(first):
    records = pool(CHUNK, 5, first=first)
    walked, at = [], first
    while at >= 0:
        walked.append(int(at))
        at = records["next"][at - first]
    assert walked == list(range(first, first + 5))


def test_the_coordinator_sends_and_receives_behind_the_nodes(plan):
    setup = build_setup(plan, list(plan.flow_edges))
    sources, targets = set(setup.links["source"]), set(setup.links["target"])
    assert sending_side(setup.nodes) in sources - targets
    assert receiving_side(setup.nodes) in targets - sources
    assert {sending_side(setup.nodes), receiving_side(setup.nodes)} == {len(setup.names), len(setup.names) + 1}


def test_the_plain_tuple_follows_the_state():
    class State(NamedTuple):
        clock: np.ndarray
        curves: Curves

    class Driver(StateOwner[State]):
        pass

    driver, arrays = Driver(), [np.zeros(i) for i in range(6)]
    driver.state = State(arrays[0], Curves(*arrays[1:5]))
    driver.state = driver.state._replace(clock=arrays[5])
    clock, curves = driver._packed
    assert type(driver._packed) is type(curves) is tuple
    assert clock is arrays[5] and all(a is b for a, b in zip(curves, arrays[1:5], strict=True))
