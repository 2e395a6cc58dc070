"""Messages of our runtime: chunks come from a pool, and chunks with one next hop travel together."""

from __future__ import annotations

import pytest

from helix_kit.scheduling import Policy
from helix_kit.simulator import BatchingOptions, simulate
from helix_kit.simulator.ranged import messages
from helix_kit.simulator.setup import new_clock
from helix_kit.simulator.state import CHUNK, pool
from helix_kit.workload import Workload


def test_chunks_that_are_given_back_are_taken_again():
    chunks, clock = pool(CHUNK, 4), new_clock()
    clock["free_chunk"], clock["free_chunks"] = 0, 4
    taken = [messages.take_chunk(chunks, clock[0]) for _ in range(4)]
    assert sorted(taken) == [0, 1, 2, 3] and clock["free_chunks"] == 0
    for number in (2, 0):
        messages.drop_chunk(chunks, clock[0], number)
    assert clock["free_chunks"] == 2
    assert {messages.take_chunk(chunks, clock[0]) for _ in range(2)} == {0, 2}
    assert clock["free_chunks"] == 0


class OneWay(Policy):
    """Every request takes the same pipeline."""

    def __init__(self, plan):
        self.pipeline = next(p for p, _ in plan.pipelines if [s.node[:4] for s in p] == ["A100"] * 3)

    def route(self, request, view):
        return self.pipeline


@pytest.mark.parametrize(
    ("requests", "prompts", "to_the_next_stage"),
    [
        (1, 100, 1),  # one chunk
        (1, 600, 3),  # chunks of 256, each sent when its step is done
        (3, 100, 2),  # the first starts alone; the others wait meanwhile, and leave their step together
    ],
)
def test_the_chunks_of_a_step_travel_as_one_message(plan, requests, prompts, to_the_next_stage):
    workload = Workload.of([(0.0, prompts, 1)] * requests)
    run = simulate(
        plan, workload, policy=OneWay(plan), duration_s=100, options=BatchingOptions(step_tokens=256, chunk_tokens=256)
    )
    used = {(use.source, use.target): use for use in run.links}
    link = used["A100-40G-0", "A100-40G-1"]
    assert link.messages == to_the_next_stage
    assert link.bytes_sent == pytest.approx(requests * prompts * plan.model.link_bytes_per_token)
    back = used["A100-40G-2", "coordinator"]
    assert back.bytes_sent == pytest.approx(8 * requests)  # a token and the request's number
