"""From an engine that has run to a `Run`: records, use of nodes and links, KV cache over time."""

from __future__ import annotations

from typing import Any

import numpy as np

from helix_kit.report import LinkUse, NodeUse, Run, TokenTimes
from helix_kit.simulator.engine import Engine
from helix_kit.workload.request import Outcome, Request, RequestRecord


def report_of(
    engine: Engine, window: tuple[float, float], partial: bool, record_tokens: bool, facts: dict[str, Any]
) -> Run:
    """The report of an engine over a window in s."""
    clock, setup, log = engine.clock[0], engine.setup, engine.log
    count = int(clock["tokens"])
    tokens = TokenTimes(log.arrays.token_request[:count].copy(), log.arrays.token_time[:count] - engine.start_s)
    records = make_records(engine, tokens, record_tokens)
    length = max(window[1] - window[0], 1e-9)
    kv: dict[str, list[tuple[float, float]]] = {}
    for time_s, names, used in log.kv_samples:
        for name, amount in zip(names, used, strict=True):
            kv.setdefault(name, []).append((time_s, float(amount)))
    nodes = {}
    for i, name in enumerate(setup.names):
        node = setup.nodes[i]
        busy, blocked = float(node["busy_s"] / length), float(node["blocked_s"] / length)
        nodes[name] = NodeUse(
            busy=busy, blocked=blocked, starved=1 - busy - blocked,
            steps=int(node["steps"]), prefill_tokens=int(node["prefill_tokens"]),
            decode_tokens=int(node["decode_tokens"]), kv_capacity=int(node["kv_capacity"]),
            kv_peak=int(node["kv_peak"]),
            kv_mean=_mean_since(kv.get(name, []), window[0]),
        )  # fmt: skip
    links = [
        LinkUse(source, target, float(link["busy"] / length), float(link["bytes"]), int(link["messages"]))
        for (source, target), link in zip(setup.edges, setup.links, strict=True)
    ]
    return Run(
        records,
        window=window,
        tokens=tokens,
        nodes=nodes,
        links=links,
        batches=log.batches_before + log.batches(int(clock["batches"]), setup.names, engine.start_s),
        kv_unit=engine.kv_unit,
        kv_samples={name: np.array(samples) for name, samples in kv.items()},
        partial=partial,
        notes=engine.notes(),
        facts=facts,
    )


def _mean_since(samples: list[tuple[float, float]], start_s: float) -> float:
    within = [amount for time_s, amount in samples if time_s >= start_s]
    return sum(within) / len(within) if within else 0.0


def make_records(engine: Engine, tokens: TokenTimes, record_tokens: bool) -> list[RequestRecord]:
    """One record for each request of the workload that was issued."""
    log = engine.log
    order = np.argsort(tokens.request, kind="stable")
    bounds = np.searchsorted(tokens.request[order], np.arange(len(engine.requests) + 1))
    records = []
    for at, request in enumerate(engine.requests[: engine.issued]):
        times = tokens.time_s[order[bounds[at] : bounds[at + 1]]]
        outcome: Outcome = "finished" if at in log.finished_s else "in_flight"
        if at in log.rejected:
            outcome = "rejected"
        arrival = engine.arrived_s(at)
        records.append(
            RequestRecord(
                Request(request.id, arrival, request.input_tokens, request.output_tokens),
                outcome=outcome,
                reason=log.rejected.get(at),
                pipeline=engine.pipeline_of(at) if at not in log.rejected else None,
                started_s=log.started_s.get(at),
                first_token_s=float(times[0]) if len(times) else None,
                finished_s=log.finished_s.get(at),
                tokens_generated=engine.generated(len(times)),
                token_times_s=times.tolist() if record_tokens else [],
                restarts=log.restarts.get(at, 0),
            )
        )
    return records
