"""What both engines say while they run."""

from __future__ import annotations

import pytest

from helix_kit.simulator import SimulationOptions, make_engine, simulate
from helix_kit.workload import Workload


@pytest.mark.parametrize("execution", ["range", "layerwise"])
def test_engines_say_when_nobody_waits(plan, execution):
    """A handful is soon let in; of many more than the cluster holds some still wait; too long ones wait for nothing."""
    long = Workload.of([(0.0, 3000, 10**7)] * 3)
    for workload, said in ((Workload.offline(5, seed=0), True), (Workload.offline(4000, seed=0), False), (long, True)):
        engine = make_engine(
            plan,
            workload,
            SimulationOptions(
                mode="offline", policy="helix", execution=execution, warmup_s=0.0, duration_s=30.0, seed=0
            ),
        )
        engine.run(30.0, lambda now_s: None, 10.0)
        assert engine.all_admitted is said
        waiting = len(workload) - len(engine.log.started_s.keys() | engine.log.rejected.keys())
        assert (waiting == 0) is said


@pytest.mark.parametrize("execution", ["range", "layerwise"])
def test_an_offline_run_says_when_its_requests_ran_dry(plan, execution):
    options = {"mode": "offline", "execution": execution, "warmup_s": 10.0, "duration_s": 60.0}
    long = simulate(plan, Workload.offline(4000, seed=0), **options)
    assert "ran_dry_s" not in long.summary() and not [note for note in long.notes if "ran dry" in note]
    taken = sum(record.started_s is not None for record in long.records)
    last_s = max(record.started_s for record in long.records if record.started_s is not None)
    # Half of the requests that the long run took up: the feed wants the next one before the long run's end.
    short = simulate(plan, Workload.offline(4000, seed=0)[: taken // 2], **options)
    started_s = sorted(record.started_s for record in short.records)
    dry_s = short.summary()["ran_dry_s"]
    assert started_s[-1] <= dry_s <= started_s[-1] + 30.0 and dry_s < last_s
    (note,) = [note for note in short.notes if "ran dry" in note]
    assert f"backlog of {taken // 2} requests ran dry at {dry_s:.0f} s of 70 s" in note
    online = simulate(plan, Workload.constant(0.1, 30.0), execution=execution)
    assert "ran_dry_s" not in online.summary()


@pytest.mark.parametrize("execution", ["range", "layerwise"])
def test_the_note_gives_the_rate_until_the_requests_ran_dry(plan, execution):
    short = simulate(plan, Workload.offline(150, seed=0), mode="offline", execution=execution, warmup_s=5.0,
                     duration_s=200.0, record_tokens=True)  # fmt: skip
    dry_s = short.summary()["ran_dry_s"]
    decodes = [t for record in short.records for t in record.token_times_s[1:] if 5.0 <= t <= dry_s]
    assert f"until then {len(decodes) / (dry_s - 5.0):.1f} decode tokens/s" in short.notes[-1]
