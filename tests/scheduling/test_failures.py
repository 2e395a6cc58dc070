"""What a user's policy raises in a simulation: one message with policy, method, request and cause."""

from __future__ import annotations

from typing import ClassVar

import pytest

import helix_kit as hk
from helix_kit.scheduling import POLICIES, Helix, Policy, PolicyError, named_failures
from helix_kit.workload.request import Request

HOOKS = ("route", "on_admitted", "on_token", "on_finished")


class Faulty(Policy):
    """Takes the plan's first pipeline, and raises for the request with 33 tokens in the methods of `fails`."""

    fails: ClassVar[set[str]] = set()

    def __init__(self, pipelines):
        self.first = pipelines[0][0]

    def _about(self, method, request):
        if method in self.fails and request.input_tokens == 33:
            raise LookupError(f"no {method}")

    def route(self, request, view):
        self._about("route", request)
        return self.first

    def on_admitted(self, request, pipeline):
        self._about("on_admitted", request)

    def on_token(self, request):
        self._about("on_token", request)

    def on_finished(self, request):
        self._about("on_finished", request)


WORKLOAD = hk.Workload.of([(0.0, 20, 4), (0.5, 33, 4), (1.0, 20, 4)])


@pytest.mark.parametrize("execution", ["range", "layerwise"])
@pytest.mark.parametrize("method", HOOKS)
def test_a_simulation_names_policy_method_request_and_cause(overlapping_plan, method, execution):
    class Mine(Faulty):
        fails: ClassVar[set[str]] = {method}

    if (method, execution) == ("on_token", "layerwise"):
        pytest.skip("the published rules do not call it")
    with pytest.raises(PolicyError) as caught:
        hk.simulate(overlapping_plan, WORKLOAD, policy=Mine, execution=execution, duration_s=600)
    told = str(caught.value)
    assert told.startswith(f"policy 'Mine': {method} raised LookupError: no {method} (")
    assert "test_failures.py, line " in told and "for request 1 (33 tokens in, 4 out)" in told
    assert isinstance(caught.value.__cause__, LookupError)


def test_the_package_s_own_policies_keep_their_tracebacks():
    helix = Helix.__new__(Helix)
    assert type(helix) in POLICIES.values()
    with pytest.raises(ZeroDivisionError), named_failures(helix, "route", Request(0, 0.0, 1, 1)):
        1 / 0
