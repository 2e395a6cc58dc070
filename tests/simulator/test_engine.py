"""What both engines say while they run."""

from __future__ import annotations

import pytest

from helix_kit.simulator import SimulationOptions, make_engine
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
