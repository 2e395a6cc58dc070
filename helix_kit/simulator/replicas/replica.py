"""One replica: a chain of nodes that together hold a model, as the compiled rules see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from helix_kit.profiles.engines import EngineRecord
from helix_kit.profiles.step import StepCosts
from helix_kit.simulator.replicas import rules
from helix_kit.simulator.replicas.state import FLIGHT, REPLICA, REQUEST, STAGE, State, free_list
from helix_kit.simulator.state import BATCH, NONE
from helix_kit.workload.prefixes import BlockKeys, block_keys
from helix_kit.workload.request import Request

TOKENS_AT_FIRST = 1 << 14


@dataclass(frozen=True)
class StageOfReplica:
    """One stage: how long its steps take, and the way to the next stage, or from the last one to the first."""

    costs: StepCosts
    hop_s: float = 0.0
    """Latency of the link."""
    hop_token_s: float = 0.0
    """Time on the link for each token of a step."""


@dataclass
class Queue:
    """All requests of a workload as records, shared by the replicas, and the keys of their blocks."""

    records: np.ndarray
    """`REQUEST`."""
    keys: BlockKeys

    @classmethod
    def of(cls, requests: Sequence[Request], block_tokens: int, receive_s: float = 0.0) -> Queue:
        """Records of requests that have not arrived yet; they reach the scheduler `receive_s` after their arrival."""
        keys = block_keys(requests, block_tokens)
        records = np.zeros(len(requests), dtype=REQUEST)
        records["arrival"] = [r.arrival_s for r in requests]
        records["arrival"] += receive_s
        records["input"] = [r.input_tokens for r in requests]
        records["output"] = [r.output_tokens for r in requests]
        records["first_key"], records["keys"] = keys.first, keys.blocks
        records["slot"] = records["next"] = NONE
        records["started"] = records["finished"] = -1.0
        return cls(records, keys)


class Replica:
    """The state of a replica, with room for its tokens that grows.

    Parameters
    ----------
    engine
        Its rules and constants.
    stages
        In order.
    blocks
        Blocks of KV cache.
    queue
        All requests; `send` says which ones come here.
    tokens
        Tokens to make room for at first, where it is known how many come.
    """

    def __init__(
        self,
        engine: EngineRecord,
        stages: Sequence[StageOfReplica],
        blocks: int,
        queue: Queue,
        *,
        tokens: int = TOKENS_AT_FIRST,
    ) -> None:
        self.blocks = blocks
        # Several stages work on as many steps at the same time, and then a request is in one of them at most.
        overlaps = engine.rules.asynchronous and len(stages) == 1
        depth = 2 if overlaps else len(stages)
        size = engine.rules.max_num_seqs
        replica = np.zeros(1, dtype=REPLICA)
        record = replica[0]
        record["depth"], record["overlaps"] = depth, overlaps
        record["max_requests"], record["token_budget"] = size, engine.rules.token_budget
        record["chunked"], record["block_tokens"] = engine.rules.chunked_prefill, engine.rules.block_tokens
        record["prefix_cache"] = engine.rules.prefix_cache
        record["answer"] = engine.answer_s
        record["window_end"] = np.inf
        record["waiting_head"] = record["waiting_tail"] = NONE
        record["free_tail"], record["free"] = blocks - 1, blocks
        longest = int((queue.records["input"] + queue.records["output"]).max()) // engine.rules.block_tokens + 2
        self._set(
            State(
                replica=replica,
                stages=_stage_records(stages),
                linear=np.array([stage.costs.linear_s for stage in stages]),
                requests=queue.records,
                arrivals=np.zeros(len(queue.records), dtype=np.int64),
                keys=queue.keys.keys,
                block_of_key=np.full(max(1, queue.keys.distinct), NONE, dtype=np.int64),
                blocks=free_list(blocks),
                running=np.zeros(size, dtype=np.int64),
                slots=np.zeros((size, min(longest, blocks + 1)), dtype=np.int64),
                free_slots=np.arange(size)[::-1].copy(),
                flights=np.zeros(depth, dtype=FLIGHT),
                flight_requests=np.zeros((depth, size), dtype=np.int64),
                token_request=np.zeros(tokens + size, dtype=np.int32),
                token_time=np.zeros(tokens + size),
                batches=np.zeros(2, dtype=BATCH),
            )
        )

    def _set(self, state: State) -> None:
        # numba takes a plain tuple quickly and looks at a named one anew in every call.
        self.state = state
        self._packed = tuple(state)

    @property
    def record(self) -> np.void:
        """The replica's own fields."""
        return self.state.replica[0]

    def measure(self, window_s: tuple[float, float], *, record_batches: bool) -> None:
        """Count use within a window, and keep every batch if asked to."""
        self.record["window_start"], self.record["window_end"] = window_s
        self.record["record_batches"] = record_batches

    def send(self, first: int, last: int | None = None) -> None:
        """The requests from `first` to before `last` (by default one) come here, at their time of arrival."""
        last = first + 1 if last is None else last
        start = int(self.record["arrived"])
        self.state.arrivals[start : start + last - first] = np.arange(first, last)
        self.record["arrived"] += last - first

    def advance(self, until_s: float) -> None:
        """Simulate until `until_s`, or until there is nothing to do."""
        while rules.advance(self._packed, until_s) == rules.ROOM_NEEDED:
            state = self.state
            tokens = {f: np.concatenate([a, np.zeros_like(a)]) for f, a in state._asdict().items() if "token_" in f}
            room = len(state.batches) * (2 if self.record["record_batches"] else 1)
            batches = np.zeros(max(room, 4 * len(state.stages)), dtype=BATCH)
            batches[: len(state.batches)] = state.batches
            self._set(state._replace(batches=batches, **tokens))

    def cached_tokens(self, at: int) -> int:
        """Tokens of a request's prompt that the prefix cache holds now."""
        request, state = self.state.requests[at], self.state
        if not self.record["prefix_cache"]:
            return 0
        keys = state.keys[int(request["first_key"]) : int(request["first_key"] + request["keys"])]
        held = state.block_of_key[keys] != NONE
        hits = len(held) if held.all() else int(held.argmin())
        size = int(self.record["block_tokens"])
        return min(hits, (int(request["input"]) - 1) // size) * size

    @property
    def tokens(self) -> tuple[np.ndarray, np.ndarray]:
        """Request and time of each token that came back."""
        count = int(self.record["tokens"])
        return self.state.token_request[:count], self.state.token_time[:count]


def _stage_records(stages: Sequence[StageOfReplica]) -> np.ndarray:
    records = np.zeros(len(stages), dtype=STAGE)
    for record, stage in zip(records, stages, strict=True):
        costs = stage.costs
        record["fixed"], record["mixed"], record["eager"] = costs.fixed_s, costs.mixed_s, costs.eager_s
        record["graph_tokens"], record["context"], record["pair"] = costs.graph_tokens, costs.context_s, costs.pair_s
        record["sampled"], record["hop"], record["hop_token"] = costs.sampled_s, stage.hop_s, stage.hop_token_s
    return records
