"""A step keeps the order of each request's chunks and the step's limits."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from helix_kit.runtime.worker.batching import StepLimits, take_next_step


@dataclass
class Chunk:
    tokens: int


@given(st.lists(st.lists(st.integers(1, 80), max_size=4), max_size=12), st.integers(1, 100), st.integers(1, 6))
def test_a_step_keeps_order_and_budget(sizes: list[list[int]], budget: int, decodes: int) -> None:
    queues = [(index, deque(Chunk(n) for n in chunks)) for index, chunks in enumerate(sizes)]
    heads = {index: queue[0] for index, queue in queues if queue}
    chosen = take_next_step(queues, StepLimits(budget, decodes))
    assert len({request for request, _ in chosen}) == len(chosen)
    assert all(chunk is heads[request] for request, chunk in chosen)
    total = sum(chunk.tokens for _, chunk in chosen)
    assert total <= budget or len(chosen) == 1
    assert sum(chunk.tokens == 1 for _, chunk in chosen) <= decodes
    assert bool(chosen) == bool(heads)
    kinds = [chunk.tokens > 1 for _, chunk in chosen]
    assert kinds == sorted(kinds)  # decodes first


def test_a_chunk_larger_than_the_budget_runs_alone() -> None:
    queues = {"a": deque([Chunk(600)]), "b": deque([Chunk(2)])}
    assert take_next_step(queues.items(), StepLimits(tokens=512)) == [("a", Chunk(600))]
    assert take_next_step(queues.items(), StepLimits(tokens=512)) == [("b", Chunk(2))]
