"""Invariant 3: KV pages used = pages of live requests; zero when idle."""

from __future__ import annotations

from hypothesis import given, settings
from simulated import cases

from helix_kit.simulator import SimulationOptions, make_engine


@settings(max_examples=80)
@given(cases())
def test_pages_at_every_second(case):
    engine = make_engine(
        case.plan,
        case.workload,
        SimulationOptions(
            mode=case.mode,
            policy=case.policy,
            execution="range",
            warmup_s=0.0,
            duration_s=300.0,
            seed=case.seed,
            faults=case.faults,
        ),
    )

    def count(now_s):
        expected = dict.fromkeys(engine.setup.names, 0)
        for at in engine.live:
            request = case.workload[at]
            for stage in engine.pipelines[at]:
                pages = -(-(request.input_tokens + request.output_tokens) // 16)
                expected[stage.node] += pages * (stage.end - stage.start)
        assert {name: engine.kv.used(name) for name in engine.setup.names} == expected
        assert all(0 <= engine.kv.used(n) <= engine.kv.capacity[n] for n in expected)

    engine.run(300.0, count, 0.25)
    count(300.0)
    if not engine.live:
        assert engine.kv.free == engine.kv.capacity


@settings(max_examples=40)
@given(cases(faults=False))
def test_published_rules_leave_nothing_behind(case):
    engine = make_engine(
        case.plan,
        case.workload,
        SimulationOptions(
            mode="online", policy=case.policy, execution="layerwise", warmup_s=0.0, duration_s=3000.0, seed=case.seed
        ),
    )
    engine.run(3000.0, lambda now_s: None, 1e9)
    assert len(engine.log.finished_s) + len(engine.log.rejected) == len(case.workload)
    assert (engine.setup.nodes["kv_used"] == 0).all()
    if engine.log.finished_s:
        assert engine.setup.nodes["kv_peak"].max() > 0
