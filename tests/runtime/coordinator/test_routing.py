"""The flow that is solved for the workers that are left, and policies that raise exceptions."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest

pytest.importorskip("torch")

from helix_kit.flow import Stage
from helix_kit.placement.plan import Plan
from helix_kit.runtime.coordinator.routing import Router, solve_rest
from helix_kit.runtime.handle import RequestFailedError
from helix_kit.runtime.weights.tiny import tiny_plan
from helix_kit.scheduling import Policy
from helix_kit.workload.request import Request

# Two equal nodes for each half of the layers.
PLACEMENT = {"a": (0, 3), "b": (0, 3), "c": (3, 6), "d": (3, 6)}


@pytest.fixture
def without_d(tiny_llama: Path):
    """What is left of a plan, of either split, when d is lost: c carries all that a and b bring."""

    def left(split: str) -> tuple[Plan, float, float]:
        whole = tiny_plan(tiny_llama, PLACEMENT).model_copy(update={"flow_split": split})
        rest = solve_rest(whole, {node: span for node, span in PLACEMENT.items() if node != "d"})
        assert rest.flow_split == split
        assert rest.flow_tokens_per_s == pytest.approx(whole.node_throughput_tokens_per_s["c"], abs=1e-3)
        return rest, rest.flow_edges.get(("coordinator", "a"), 0.0), rest.flow_edges.get(("coordinator", "b"), 0.0)

    return left


def test_what_is_left_of_a_balanced_plan_is_balanced(without_d) -> None:
    """a and b are alike, so each gets half of the requests, though either could take them all."""
    rest, a, b = without_d("balanced")
    assert a == pytest.approx(rest.flow_tokens_per_s / 2, rel=1e-3) == pytest.approx(b, rel=1e-3)


def test_what_is_left_of_any_maximum_flow_is_the_first_met(without_d) -> None:
    rest, a, b = without_d("any")
    assert sorted((a, b)) == [0.0, rest.flow_tokens_per_s]


class Faulty(Policy):
    """Takes a and c; raises KeyError in the methods named in `fails`."""

    fails: ClassVar[set[str]] = set()

    def __init__(self, plan: Plan) -> None:
        self._raise_in("constructor")

    def _raise_in(self, method: str) -> None:
        if method in self.fails:
            raise KeyError(method)

    def route(self, request, view):
        self._raise_in("route")
        return (Stage("a", 0, 3), Stage("c", 3, 6))

    def on_admitted(self, request, pipeline):
        self._raise_in("on_admitted")

    def on_refused(self, request, pipeline):
        self._raise_in("on_refused")

    def on_finished(self, request):
        self._raise_in("on_finished")

    def on_token(self, request):
        self._raise_in("on_token")

    def on_hop_time(self, source, target, seconds):
        self._raise_in("on_hop_time")


class AllUp:
    """A view of a cluster whose nodes are up."""

    def is_alive(self, node: str) -> bool:
        return True

    def has_room(self, node: str, tokens: int, num_layers: int) -> bool:
        return True


@pytest.fixture
def router_of(tiny_llama: Path):
    """A router over all nodes, with the policy of a class."""

    def make(policy: type[Policy]) -> Router:
        router = Router(tiny_plan(tiny_llama, PLACEMENT), policy, 0, AllUp())  # type: ignore[arg-type]
        router.replan(PLACEMENT)
        return router

    return make


REQUEST = Request(id=1, arrival_s=0.0, input_tokens=5, output_tokens=3)


@pytest.mark.parametrize("method", ["route", "on_admitted", "on_refused"])
def test_an_exception_of_the_policy_fails_the_request_it_was_asked_about(router_of, method: str) -> None:
    class Fails(Faulty):
        fails: ClassVar[set[str]] = {method}

    router, pipeline = router_of(Fails), (Stage("a", 0, 3), Stage("c", 3, 6))
    asked = {
        "route": lambda: router.route(REQUEST),
        "on_admitted": lambda: router.policy_admitted(REQUEST, pipeline),
        "on_refused": lambda: router.policy_refused(REQUEST, pipeline),
    }
    with pytest.raises(RequestFailedError, match=rf"policy 'Fails': {method} raised KeyError: .* \(test_routing.py, "):
        asked[method]()
    Fails.fails = set()
    assert router.route(REQUEST) == pipeline, "the next request is served"


def test_exceptions_of_hooks_without_a_request_are_logged_once(router_of, caplog) -> None:
    class Fails(Faulty):
        fails: ClassVar[set[str]] = {"on_finished", "on_token", "on_hop_time"}

    router = router_of(Fails)
    for _ in range(3):
        router.untold_tokens.append(REQUEST)
        router.policy_finished(REQUEST)
        router.policy_hop_time("a", "c", 0.1)
    assert router.route(REQUEST) is not None
    said = [record.getMessage().split(" raised ")[0] for record in caplog.records]
    assert sorted(said) == [f"policy 'Fails': {hook}" for hook in ("on_finished", "on_hop_time", "on_token")]


def test_no_pipeline_of_the_plan_fails_the_request(router_of) -> None:
    class Wrong(Policy):
        def route(self, request, view):
            return (Stage("a", 0, 3),)

    with pytest.raises(RequestFailedError, match="policy = 'Wrong': route returned") as caught:
        router_of(Wrong).route(REQUEST)
    assert caught.value.code == "policy_failed"


def test_a_policy_that_cannot_be_made_for_the_nodes_that_are_left(router_of) -> None:
    class Fails(Faulty):
        fails: ClassVar[set[str]] = set()

    router = router_of(Fails)
    Fails.fails = {"constructor"}
    router.replan({"a", "c"})
    assert not router.has_pipeline and "Fails cannot be made: KeyError: 'constructor'" in router.fault
    Fails.fails = set()
    router.replan(PLACEMENT)
    assert router.has_pipeline and router.fault is None


def test_helix_gets_the_flow_of_the_machines_that_are_left(tiny_llama) -> None:
    """A lane's second machine is lost: its first one, which had a single way on, now sends to the other lane."""
    whole = tiny_plan(tiny_llama, {"a": (0, 3), "b": (3, 6), "c": (0, 3), "d": (3, 6)})
    half = whole.flow_tokens_per_s / 2
    lanes = [(*pair, "coordinator") for pair in (("coordinator", "a", "b"), ("coordinator", "c", "d"))]
    edges = [edge for lane in lanes for edge in pairwise(lane)]
    fields = {name: getattr(whole, name) for name in Plan.model_fields}
    plan = Plan(**(fields | {"flow": tuple((a, b, half) for a, b in edges)}))
    router = Router(plan, "helix", 0, AllUp())
    router.replan(plan.placement)

    def ways(first_id: int) -> set[tuple[str, ...]]:
        requests = [Request(first_id + i, 0.0, 10, 5) for i in range(8)]
        return {tuple(stage.node for stage in router.route(request)) for request in requests}

    assert ways(0) == {("a", "b"), ("c", "d")}
    router.replan({"a", "b", "c"})
    assert ways(10) == {("a", "b"), ("c", "b")}
    assert router.flow_tokens_per_s == pytest.approx(half), "b alone carries what is left"
    router.replan(plan.placement)
    assert ways(20) == {("a", "b"), ("c", "d")}
