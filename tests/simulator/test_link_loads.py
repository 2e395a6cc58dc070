"""Loads that compiled code counts are those that the policy itself would count."""

from __future__ import annotations

import pytest

from helix_kit.scheduling import Policy, make_policy
from helix_kit.simulator import simulate
from helix_kit.workload import Workload

QUIET = Workload.poisson(rate_per_s=0.3, duration_s=60, input_tokens=300, output_tokens=20, seed=0)


def test_compiled_token_loads_equal_those_of_on_token(plan):
    """Helix counts decode tokens in compiled code here and in `on_token` in the runtime: the same loads in the end."""

    class Slow(Policy):
        name = "slow"

        def __init__(self):
            self.inner = make_policy("helix", plan)
            self.topology = self.inner.topology

        def route(self, request, view):
            return self.inner.route(request, view)

        def on_refused(self, request, pipeline):
            self.inner.on_refused(request, pipeline)

        def on_finished(self, request):
            self.inner.on_finished(request)

        def on_token(self, request):
            self.inner.on_token(request)

    fast, slow = make_policy("helix", plan), Slow()
    runs = [simulate(plan, QUIET, policy=p, duration_s=400, record_tokens=True) for p in (fast, slow)]
    assert runs[0].records == runs[1].records
    assert fast.token_loads()[0] == pytest.approx(slow.inner.token_loads()[0], rel=1e-12)
