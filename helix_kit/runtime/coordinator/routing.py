"""The scheduling policy over the nodes that are up, with the flow solved again for them.

A policy may be the user's own code. An exception in it must not end the engine, which other requests need: it fails the
request that the policy was asked about.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable
from pathlib import Path

import helix_kit.flow.balanced  # noqa: F401 - load scipy now: after a loss, requests wait for the new flow
from helix_kit.errors import HelixKitError, InputError
from helix_kit.flow import Edge, Pipeline
from helix_kit.placement.plan import Plan
from helix_kit.runtime.handle import RequestFailedError
from helix_kit.scheduling import Policy, PolicyChoice, View, checked_pipeline, make_policy, policy_name
from helix_kit.scheduling.policy import valid_links
from helix_kit.workload.request import Request

log = logging.getLogger(__name__)


def solve_rest(plan: Plan, placement: dict[str, tuple[int, int]]) -> Plan:
    """`plan` with only the nodes of `placement`: the flow is solved again, and split among pipelines as in `plan`.

    The nodes' throughputs stay those of the plan.
    """
    speeds = {node: plan.node_throughput_tokens_per_s[node] for node in placement}
    flow = plan.problem.max_flow(
        placement, partial_inference=plan.partial_inference, split=plan.flow_split, capacity_tokens_per_s=speeds
    )
    value = flow.tokens_per_s
    # Not `model_copy`: it would copy the cached properties of `plan`, too.
    fields = {name: getattr(plan, name) for name in Plan.model_fields}
    fields.update(
        placement=placement,
        flow_tokens_per_s=value,
        flow=tuple((a, b, f) for (a, b), f in flow.edges.items()),
        node_throughput_tokens_per_s=speeds,
        gap=(plan.bound_tokens_per_s - value) / value if value > 0 else float("inf"),
        progress=(),
        notes=(*plan.notes, "flow solved again for the workers that are up"),
    )
    return Plan(**fields)


class Router:
    """Asks the policy for pipelines over the nodes of `plan` that are up; `replan` says which these are.

    Used in the coordinator's thread only. `view` is what the policy may see of the engine.

    Exceptions of the policy become `RequestFailedError` where a request can be failed for them: in `route`,
    `policy_admitted` and `policy_refused`. In the other hooks they are logged, and the requests go on.
    """

    def __init__(self, plan: Plan, policy: PolicyChoice, seed: int, view: View) -> None:
        self.plan = plan
        self._choice, self._seed, self._view = policy, seed, view
        self._solved: dict[frozenset[str], Plan] = {frozenset(plan.placement): plan}
        self._in_force = plan
        """The plan over the nodes that are up."""
        self._policy: Policy | None = None
        self._nodes: frozenset[str] | None = None
        self.placement: dict[str, tuple[int, int]] = {}
        self.links: list[Edge] = []
        self.flow_tokens_per_s = 0.0
        self.fault: str | None = None
        """Why no policy could be made for the nodes that are up; None where it could."""
        self._logged: set[str] = set()
        """Methods of the policy whose exception has been logged: a hook may raise at every token."""
        self.untold_tokens: list[Request] = []
        """The request of each token that the policy has not been told of: it needs them when it chooses a pipeline."""

    @property
    def has_pipeline(self) -> bool:
        """Whether the nodes that are up cover all layers."""
        return self._policy is not None

    def replan(self, nodes: Iterable[str]) -> None:
        """Solve the flow for the plan restricted to `nodes`, and start a new policy on it."""
        alive = frozenset(nodes)
        if alive == self._nodes:
            return
        self._nodes = alive
        self.untold_tokens.clear()
        if alive not in self._solved:
            kept = {name: span for name, span in self.plan.placement.items() if name in alive}
            self._solved[alive] = solve_rest(self.plan, kept)
        self._in_force = now = self._solved[alive]
        self.placement, self.links = dict(now.placement), valid_links(now)
        self.flow_tokens_per_s = now.flow_tokens_per_s
        self._policy, self.fault = None, None
        if now.flow_tokens_per_s > 0:
            try:
                self._policy = make_policy(self._choice, now, seed=self._seed)
            except HelixKitError as error:  # its message says what the constructor raised, and where
                self.fault = str(error)
                log.error("%s", error, exc_info=error)

    def route(self, request: Request) -> Pipeline | None:
        """The policy's pipeline for `request`; None when it finds no room, or when a node of the pipeline is down.

        Raises RequestFailedError when the policy raises an exception, or returns what is no pipeline.
        """
        if self._policy is None:
            return None
        self._report_tokens()
        try:
            answer = self._policy.route(request, self._view)
        except Exception as error:
            raise self._failure("route", error) from error
        try:
            pipeline = checked_pipeline(self._policy, answer, self._in_force)
        except InputError as error:  # its message says what `route` returned and what was expected
            raise RequestFailedError(str(error), "policy_failed") from error
        if pipeline is not None and not all(self._view.is_alive(stage.node) for stage in pipeline):
            self.policy_refused(request, pipeline)
            return None
        return pipeline

    def policy_admitted(self, request: Request, pipeline: Pipeline) -> None:
        """Tell the policy that the request starts on the pipeline."""
        if self._policy is not None:
            try:
                self._policy.on_admitted(request, pipeline)
            except Exception as error:
                raise self._failure("on_admitted", error) from error

    def policy_refused(self, request: Request, pipeline: Pipeline) -> None:
        """Tell the policy that the pipeline has too few KV pages for the request."""
        if self._policy is not None:
            try:
                self._policy.on_refused(request, pipeline)
            except Exception as error:
                raise self._failure("on_refused", error) from error

    def _report_tokens(self) -> None:
        if self._policy is not None and type(self._policy).on_token is not Policy.on_token:
            for request in self.untold_tokens:
                try:
                    self._policy.on_token(request)
                except Exception as error:
                    self._describe("on_token", error)
        self.untold_tokens.clear()

    def policy_hop_time(self, source: str, target: str, seconds: float) -> None:
        """Tell the policy how long rows from `source` waited and were computed on `target`.

        The time on the network is left out, because the clocks of two machines cannot be compared.
        """
        if self._policy is not None and (source, target) in self.links:
            try:
                self._policy.on_hop_time(source, target, seconds)
            except Exception as error:
                self._describe("on_hop_time", error)

    def policy_finished(self, request: Request) -> None:
        """Tell the policy that the request has left its pipeline."""
        self._report_tokens()
        if self._policy is not None:
            try:
                self._policy.on_finished(request)
            except Exception as error:
                self._describe("on_finished", error)

    def _failure(self, method: str, error: Exception) -> RequestFailedError:
        return RequestFailedError(self._describe(method, error), "policy_failed")

    def _describe(self, method: str, error: Exception) -> str:
        """What the policy's method raised and where; the first time for each method it is logged with its traceback."""
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = f"policy {policy_name(self._choice)!r}: {method} raised {type(error).__name__}: {error}"
        said += f" ({Path(place.filename).name}, line {place.lineno})"
        if method not in self._logged:
            self._logged.add(method)
            log.error("%s", said, exc_info=error)
        return said
