"""Driver of `execution="range"`: a coordinator like our runtime's in front of the compiled engine.

Requests wait in one queue until the policy has a pipeline for the first of them and every stage has free KV pages for
its whole context. Requests whose KV cache was on a lost node are prefilled again elsewhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from helix_kit.flow import Pipeline
from helix_kit.placement.plan import Plan
from helix_kit.scheduling import PagedKV, Policy, checked_pipeline, make_policy, named_failures
from helix_kit.scheduling.policy import valid_links
from helix_kit.simulator.faults import PlanSwap
from helix_kit.simulator.link_loads import link_loads
from helix_kit.simulator.log import KVSample, RunLog
from helix_kit.simulator.options import SimulationOptions
from helix_kit.simulator.ranged import rules
from helix_kit.simulator.ranged.cached_kv import CachedKV, Contents
from helix_kit.simulator.ranged.faults import Entry, agenda_of, check_faults
from helix_kit.simulator.ranged.longest_context import longest_context_tokens
from helix_kit.simulator.ranged.state import State
from helix_kit.simulator.ranged.view import RangedView
from helix_kit.simulator.setup import (
    Setup,
    build_setup,
    carry_statistics,
    load_seconds,
    longest_path,
    new_clock,
    request_records,
)
from helix_kit.simulator.state import QUEUE, filled
from helix_kit.workload.request import Request


def ranged_engine(plan: Plan, workload: Sequence[Request], options: SimulationOptions) -> RangedEngine:
    """An engine under our runtime's rules, ready to run.

    Without `options.links` every link that fits may be used, since faults may call for it.
    """
    usable = None if options.links is None else list(options.links)

    def make_setup(under: Plan) -> Setup:
        links = usable if usable is not None else valid_links(under)
        return build_setup(under, links, kv_capacity=options.kv_capacity)

    def choose(under: Plan) -> Policy:
        links = None if options.is_published("helix") else usable
        return make_policy(options.policy, under, seed=options.seed, kv_capacity=options.kv_capacity, links=links)

    setup = make_setup(plan)
    check_faults(options.faults, setup)
    return RangedEngine(setup, workload, options, choose, make_setup)


class RangedEngine(RangedView):
    """One simulation under our runtime's rules; requests are known by their place in the workload.

    `make_policy` and `make_setup` give the policy and the arrays for a plan: the first one, and those that follow after
    a fault or a swap.
    """

    kv_unit = "pages"
    start_s = 0.0

    def __init__(
        self,
        setup: Setup,
        requests: Sequence[Request],
        options: SimulationOptions,
        make_policy: Callable[[Plan], Policy],
        make_setup: Callable[[Plan], Setup],
    ) -> None:
        self._stream = list(requests)
        self.requests, self.batching = self._stream, options.batching
        self._make_policy, self._make_setup = make_policy, make_setup
        self._is_offline = options.is_offline
        self.log = RunLog.for_requests(len(requests), record_batches=options.record_batches)
        self.pipelines, self.live = {}, {}
        self.issued = 0
        self.waiting_samples, self._waiting = [], deque()
        self._agenda = agenda_of(options.faults, self)
        self._unavailable_until_s = 0.0
        self.clock = new_clock()
        clock = self.clock[0]
        clock["window_start"], clock["window_end"] = options.window_s
        clock["record_batches"] = options.record_batches
        clock["step_tokens"] = self.batching.step_tokens
        clock["goes_on"] = self.batching.only_stage_goes_on
        self._requests = request_records(requests, ("next",))
        self._finished = np.zeros(len(requests) + 1, dtype=np.int64)
        self._continued = np.zeros(len(requests) + 1, dtype=np.int64)
        self._prompted = np.zeros(len(requests) + 1, dtype=np.int64)
        self._contents = Contents.worth_caching(requests, options)
        clock["ask_prompts"] = self._contents is not None
        self._install(setup)

    def _install(self, setup: Setup) -> None:
        """Start with an empty cluster under a plan."""
        self.setup = setup
        clock = self.clock[0]
        clock["copy_bytes"] = setup.plan.model.activation_bytes_per_token
        capacity = {n: int(node["kv_capacity"]) for n, node in zip(setup.names, setup.compute_nodes, strict=True)}
        if self._contents is not None:
            ends = {name: end for name, (_, end) in setup.plan.placement.items()}
            self.kv = CachedKV(capacity, ends, self._contents)
        else:
            self.kv = PagedKV(capacity, page_tokens=self.batching.page_tokens)
        self.longest_context_tokens = longest_context_tokens(setup, self.kv)
        self._peak_pages = dict.fromkeys(setup.names, 0)
        self._dead = set()
        chunks, messages, heap, fifo = self.new_pools()
        setup.nodes["since"] = clock["now"]
        policy = self._make_policy(setup.plan)
        self.state = State(
            nodes=setup.nodes,
            links=setup.links,
            requests=self._requests,
            routes=np.zeros((len(self.requests), longest_path(setup) + 1), dtype=np.int32),
            into=setup.into,
            chunks=chunks,
            messages=messages,
            inboxes=filled(QUEUE, 2 * len(setup.nodes), ("head", "tail")),
            clock=clock,
            heap=heap,
            fifo=fifo,
            entering=np.zeros((setup.plan.model.num_layers + 1, 2), dtype=np.int64),
            curves=setup.curves,
            loads=link_loads(policy, setup),
            hop_averages=np.zeros(0),
            log=self.log.arrays,
            finished=self._finished,
            continued=self._continued,
            prompted=self._prompted,
        )
        self._use_policy(policy)

    def _use_policy(self, policy: Policy) -> None:
        """From now on requests are routed by the policy, whose counts compiled code keeps up to date."""
        self.policy = policy
        loads = link_loads(policy, self.setup)
        averages, smoothing = policy.hop_averages() or (np.zeros(0), 0.0)
        if len(averages) and not len(loads.of_link):
            loads = loads._replace(of_link=link_loads(policy, self.setup, always=True).of_link)
        self._ask_tokens = policy.token_loads() is None and type(policy).on_token is not Policy.on_token
        self.clock[0]["ask_tokens"], self.clock[0]["smoothing"] = self._ask_tokens, smoothing
        self.state = self.state._replace(loads=loads, hop_averages=averages)

    def run(self, duration_s: float, watch: Callable[[float], None], every_s: float) -> None:
        """Simulate `duration_s` seconds, calling `watch(seconds)` every `every_s` of them."""
        mark = 0.0
        while True:
            arrival = self.requests[self.issued].arrival_s if self.issued < len(self.requests) else np.inf
            if self._is_offline and self.issued < len(self.requests):
                arrival = 0.0
            fault_at = self._agenda[0].time_s if self._agenda else np.inf
            until = min(duration_s, arrival, mark, fault_at)
            self._advance(until)
            if until >= duration_s:
                break
            self.clock["now"] = max(self.clock["now"][0], until)
            if until == mark:
                self._sample(mark)
                watch(mark)
                mark += every_s
            elif until == fault_at:
                self._agenda.pop(0).happen()
                self._admit()
            else:
                self._issue()
        self.clock["now"] = duration_s
        self._sample(duration_s)
        for name, node in zip(self.setup.names, self.setup.compute_nodes, strict=True):
            node["kv_peak"] = self._peak_pages[name]
            node["kv_capacity"] = self.kv.capacity[name]

    def _sample(self, now_s: float) -> None:
        used = np.array([self.kv.used(name) for name in self.setup.names])
        self.log.kv_samples.append(KVSample(now_s, self.setup.names, used))
        self.waiting_samples.append((now_s, len(self._waiting)))

    def _issue(self) -> None:
        """Put the requests that have arrived into the queue; reject those too long for any pipeline."""
        while self.issued < len(self.requests) and (
            self._is_offline or self.requests[self.issued].arrival_s <= self.clock["now"][0]
        ):
            at = self.issued
            self.issued += 1
            request = self.requests[at]
            tokens, longest = request.input_tokens + request.output_tokens, self.longest_context_tokens
            if tokens > longest:
                self.log.rejected[at] = f"needs KV cache for {tokens} tokens; the largest pipeline holds {longest}"
            else:
                self._waiting.append(at)
        self._admit()

    def _admit(self) -> None:
        """Admit the first requests of the queue, as far as there is room, and send what is to be sent."""
        self._admit_first()
        if self.clock["drafts"][0] >= 0:
            rules.send_all(self._packed)

    def _admit_first(self) -> None:
        if self.clock["now"][0] < self._unavailable_until_s:
            return
        limit = self.batching.max_in_flight
        while self._waiting and (limit is None or len(self.live) < limit):
            at = self._waiting[0]
            request = self.as_it_stands(at)
            pipeline, cached = self.offer(at, request)
            if pipeline is None:
                if not self.live and not self._agenda and not self._dead:
                    self._waiting.popleft()
                    self.log.rejected[at] = "the policy finds no pipeline for it in an empty cluster"
                    continue
                return
            self._waiting.popleft()
            with named_failures(self.policy, "on_admitted", request):
                self.policy.on_admitted(request, pipeline)
            self.launch(at, request, pipeline, cached)

    def offer(self, at: int, request: Request) -> tuple[Pipeline | None, int]:
        """The pipeline on which a request has got its pages, and the tokens that its stages hold; None: it waits."""
        if isinstance(self.kv, CachedKV):
            self.kv.look_up(at, request.input_tokens)
        with named_failures(self.policy, "route", request):
            answer = self.policy.route(request, self)
        pipeline = checked_pipeline(self.policy, answer, self.setup.plan)
        if pipeline is None:
            return None, 0
        if isinstance(self.kv, CachedKV):
            cached = self.kv.reserve(at, request.input_tokens + request.output_tokens, pipeline)
            if cached and at not in self.log.started_s:
                self.log.cached_tokens[at] = cached
        else:
            cached = 0 if self.kv.reserve(request, pipeline) else None
        if cached is None:
            with named_failures(self.policy, "on_refused", request):
                self.policy.on_refused(request, pipeline)
            return None, 0
        return pipeline, cached

    def withdraw(self, request: Request, pipeline: Pipeline) -> None:
        """Take back an offer that was not taken up."""
        if isinstance(self.kv, CachedKV):
            self.kv.release(request.id)
        else:
            self.kv.release(request)
        self.policy.on_refused(request, pipeline)

    def exchange(self, at: int, input_tokens: int, output_tokens: int) -> Request:
        """Put a request of other lengths in the place of one that was not admitted yet; returns the new one."""
        request = Request(at, self.requests[at].arrival_s, int(input_tokens), int(output_tokens))
        self._stream[at] = request
        self._requests[at]["input"], self._requests[at]["output"] = request.input_tokens, request.output_tokens
        return request

    def as_it_stands(self, at: int) -> Request:
        """The request with the tokens that it has generated as part of its prompt."""
        original, done = self.requests[at], int(self._requests[at]["done"])
        return Request(at, original.arrival_s, original.input_tokens + done, original.output_tokens - done)

    def launch(self, at: int, request: Request, pipeline: Pipeline, cached: int) -> None:
        """Start a request: write its prompt, without the first `cached` tokens, for the first stage."""
        self.take_up(at, request, pipeline)
        self.need_chunks(request.input_tokens // self.batching.chunk_tokens + 2)
        self.need_messages(2 * len(self.setup.links))
        rules.launch(self._packed, at, self.batching.chunk_tokens, cached)

    def take_up(self, at: int, request: Request, pipeline: Pipeline) -> None:
        """Record an admitted request: its route, and the pages that it has reserved."""
        route = self.setup.route_of(pipeline)
        self.state.routes[at, : len(route)] = route
        self._requests[at]["hops"] = len(route)
        self.live[at] = request
        self.pipelines[at] = pipeline
        self.log.started_s.setdefault(at, float(self.clock["now"][0]))
        for stage in pipeline:
            self._peak_pages[stage.node] = max(self._peak_pages[stage.node], self.kv.used(stage.node))

    def _advance(self, until: float) -> None:
        clock = self.clock[0]
        while True:
            self.need_heap()
            why = rules.advance(self._packed, until)
            if why == rules.REACHED:
                return
            if why == rules.FULL:
                self.grow(self.batching.step_tokens)
                continue
            if self._ask_tokens:
                for at in self._continued[: clock["continued"]]:
                    with named_failures(self.policy, "on_token", self.live[int(at)]):
                        self.policy.on_token(self.live[int(at)])
            if isinstance(self.kv, CachedKV):
                for at in self._prompted[: clock["prompted"]].tolist():
                    self.kv.add_computed(at, self._computed_tokens(at, first=True))
            for at in self._finished[: clock["finished"]]:
                self.log.finished_s[int(at)] = float(clock["now"])
                self._leave(int(at))
            if clock["finished"]:
                self._admit()

    def _computed_tokens(self, at: int, *, first: bool = False) -> int:
        """Tokens of the request's context that its stages have computed: all but the one that came last.

        Of a request that started again, the same without the tokens that came before its `first` one since.
        """
        record = self._requests[at]
        return int(record["input"] + max(0, record["done"] - (2 if first else 1)))

    def _leave(self, at: int) -> None:
        """Release the pages of a live request, and tell the policy that it is gone."""
        request = self.live.pop(at)
        if isinstance(self.kv, CachedKV):
            if self._requests[at]["done"] > self._requests[at]["resumed"]:
                self.kv.add_computed(at, self._computed_tokens(at))
            self.kv.release(at)
        else:
            self.kv.release(request)
        with named_failures(self.policy, "on_finished", request):
            self.policy.on_finished(request)

    def _restart(self, victims: Sequence[int]) -> None:
        """Put live requests back at the head of the queue, to be prefilled again."""
        for at in victims:
            self._requests[at]["epoch"] += 1
            self.log.restarts[at] = self.log.restarts.get(at, 0) + 1
            self._leave(at)
        self._waiting.extendleft(sorted(victims, reverse=True))

    def node_dies(self, node: str) -> None:
        """The node stops."""
        rules.kill(self._packed, self.setup.number_of[node])
        self._dead.add(node)

    def node_is_missed(self, node: str) -> None:
        """The coordinator notices: new flow over the survivors, and every request that used the node starts again."""
        plan = self.setup.plan
        victims = [at for at in self.live if any(s.node == node for s in self.pipelines[at])]
        if isinstance(self.kv, CachedKV):
            self.kv.lose(node)
        self._restart(victims)
        left = plan.rearranged({name: span for name, span in plan.placement.items() if self.is_alive(name)})
        if left.flow_tokens_per_s > 0:
            self._use_policy(self._make_policy(left))

    def swap(self, fault: PlanSwap) -> None:
        """All live requests start again under another plan, once it is loaded."""
        self._restart(sorted(self.live))
        reload_s = load_seconds(fault.plan) if fault.reload_s is None else fault.reload_s
        self._unavailable_until_s = float(self.clock["now"][0]) + reload_s
        setup, before = self._make_setup(fault.plan), self.setup
        self.log.batches_before += self.log.batches(self.clock[0]["batches"], before.names, self.start_s)
        self.clock["batches"] = 0
        carry_statistics(before, setup)
        self._install(setup)
        # Nothing happens at this moment itself, but waiting requests are tried again after every entry.
        self._agenda.append(Entry(self._unavailable_until_s, lambda: None))
        self._agenda.sort(key=lambda entry: entry.time_s)
