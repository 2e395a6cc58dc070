"""Invariant 2: simulated time never runs back."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from simulated import cases

from helix_kit.simulator import SimulationOptions, make_engine, simulate


@settings(max_examples=60)
@given(cases())
def test_tokens_batches_and_the_clock_move_forward(case):
    for execution in ("range", "layerwise"):
        engine = make_engine(
            case.plan,
            case.workload,
            SimulationOptions(
                mode=case.mode,
                policy=case.policy,
                execution=execution,
                warmup_s=0.0,
                duration_s=200.0,
                seed=case.seed,
                record_batches=True,
                faults=case.faults if execution == "range" else (),
            ),
        )
        seen = []
        engine.run(200.0, seen.append, 1.0)
        assert seen == sorted(seen)
        times = engine.log.arrays.token_time[: engine.clock[0]["tokens"]]
        assert (np.diff(times) >= 0).all()
        batches = engine.log.arrays.batches[: engine.clock[0]["batches"]]
        assert (np.diff(batches["end"]) >= 0).all()
        for node in range(len(engine.setup.names)):
            own = batches[batches["node"] == node]
            assert (own["end"] >= own["start"]).all()
            assert (own["start"][1:] >= own["end"][:-1]).all(), "a node runs one batch at a time"


@settings(max_examples=30)
@given(cases(faults=False))
def test_each_request_goes_forward(case):
    run = simulate(case.plan, case.workload, policy=case.policy, seed=case.seed, duration_s=300, record_tokens=True)
    for record in run.records:
        times = [record.request.arrival_s, *record.token_times_s]
        assert times == sorted(times)
    assert all(latency >= 0 for phase in ("prompt", "decode") for latency in run.latencies(phase))
