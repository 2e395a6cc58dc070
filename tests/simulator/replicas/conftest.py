"""A replica of whatever speed a test asks for."""

from __future__ import annotations

import numpy as np
import pytest

from helix_kit.profiles.engines import load_engine
from helix_kit.profiles.step import StepCosts
from helix_kit.simulator.replicas.replica import Queue, Replica, StageOfReplica


@pytest.fixture
def make_replica():
    """(requests, blocks, rules, costs, stages) -> (replica that has run, its queue), without API constants."""

    def make(requests, *, blocks=1000, stages=1, fixed_s=0.0, token_s=0.0, hop_s=0.0, runs=True, **rules):
        engine = load_engine("vllm-0.15").with_rules(**{"max_num_batched_tokens": 64, "asynchronous": False, **rules})
        zero = {name: engine.constants.by_name()[name].model_copy(update={"value": 0.0}) for name in
                ("receive_ms", "answer_ms")}  # fmt: skip
        engine = engine.model_copy(update={"constants": engine.constants.model_copy(update=zero)})
        costs = StepCosts(
            linear_s=token_s * np.arange(engine.rules.token_budget + 1), fixed_s=fixed_s, mixed_s=0.0, eager_s=0.0,
            graph_tokens=10**6, context_s=0.0, pair_s=0.0, sampled_s=0.0,
        )  # fmt: skip
        queue = Queue.of(requests, engine.rules.block_tokens, engine.receive_s)
        replica = Replica(engine, [StageOfReplica(costs, hop_s)] * stages, blocks, queue)
        replica.send(0, len(requests))
        if runs:
            replica.advance(np.inf)
        return replica, queue

    return make
