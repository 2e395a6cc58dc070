"""From an engine that has run to a `Run`: records, use of nodes and links, KV cache over time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
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
    with _no_collection():
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
    notes = engine.notes()
    if engine.ran_dry_s is not None:
        notes.append(dry_note(engine, window))
        facts = {**facts, "ran_dry_s": engine.ran_dry_s}
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
        notes=notes,
        facts=facts,
    )


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without Python's cyclic garbage collector: it looks at all records so far again and again, 60 % of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def dry_note(engine: Engine, window: tuple[float, float]) -> str:
    """What a reader must know where an offline workload ends before the run: when, and the rate until then."""
    dry_s = engine.ran_dry_s
    assert dry_s is not None, "the workload lasted"
    said = (
        f"the backlog of {len(engine.requests):,} requests ran dry at {dry_s:.0f} s of {window[1]:.0f} s: from then on "
        "the cluster empties, and the rates of the window are not those of a full cluster"
    )
    if dry_s <= window[0]:
        return f"{said} (it ran dry before the measuring began; give more requests)"
    times = engine.log.arrays.token_time[: int(engine.clock[0]["tokens"])] - engine.start_s
    request = engine.log.arrays.token_request[: len(times)]
    is_decode = np.ones(len(request), dtype=bool)
    is_decode[np.unique(request, return_index=True)[1]] = False  # A request's first token ends its prompt.
    decoded = int((is_decode & (times >= window[0]) & (times <= dry_s)).sum())
    rate = decoded / (dry_s - window[0])
    return f"{said} (until then {rate:.1f} decode tokens/s; give more requests)"


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
                cached_tokens=log.cached_tokens.get(at, 0),
                restarts=log.restarts.get(at, 0),
            )
        )
    return records
