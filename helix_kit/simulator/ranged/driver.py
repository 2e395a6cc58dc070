"""Driver of `execution="range"`: a coordinator like our runtime's in front of the compiled engine.

Requests wait in one queue until the policy has a pipeline for the first of them and every stage has free KV pages
for its whole context; what a lost node held is prefilled again elsewhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from helix_kit.cluster import COORDINATOR
from helix_kit.errors import InputError
from helix_kit.flow import Pipeline
from helix_kit.placement.plan import Plan
from helix_kit.report import Batch
from helix_kit.scheduling import PAGE_TOKENS, PagedKV, Policy
from helix_kit.simulator import setup
from helix_kit.simulator.faults import Fault, LinkDegrades, NodeDies, NodeSlows, PlanSwap
from helix_kit.simulator.layerwise.driver import finished_batches, longest_path, token_loads
from helix_kit.simulator.ranged import rules as ranged
from helix_kit.simulator.setup import Setup
from helix_kit.simulator.state import BATCH, MESSAGE, PIECE, QUERY, QUEUE, filled, pool
from helix_kit.workload.request import Request

GROWING = 1.25
"""The queue counts as growing when at the end it is this much longer than halfway, and longer than ten."""


@dataclass(frozen=True)
class Options:
    """How workers batch: the defaults of our runtime."""

    step_tokens: int = 512
    chunk_tokens: int = 256
    page_tokens: int = PAGE_TOKENS
    max_in_flight: int | None = None


class Serving:
    """One simulation under the runtime's rules."""

    kv_unit = "pages"
    start_s = 0.0

    def __init__(
        self,
        made: Setup,
        requests: Sequence[Request],
        make_policy: Callable[[Plan], Policy],
        make_setup: Callable[[Plan], Setup],
        *,
        offline: bool,
        window: tuple[float, float],
        record_batches: bool,
        faults: Sequence[Fault] = (),
        options: Options | None = None,
    ) -> None:
        self.requests, self.options = requests, options or Options()
        self._make_policy, self._make_setup = make_policy, make_setup
        self._offline = offline
        self.rejected: dict[int, str] = {}
        self.started: dict[int, float] = {}
        self.finished: dict[int, float] = {}
        self.restarts: dict[int, int] = {}
        self.pipelines: dict[int, Pipeline] = {}
        self.issued = 0
        self.kv_samples: list[tuple[float, list[str], np.ndarray]] = []
        self.batches_before: list[Batch] = []
        self.waiting_samples: list[tuple[float, int]] = []
        self._waiting: deque[int] = deque()
        self._live: dict[int, Request] = {}
        self._agenda = sorted(_agenda(faults), key=lambda entry: entry[0])
        self._unavailable_until = 0.0
        self.queries = filled(QUERY, len(requests), ("next",))
        self.queries["input"] = [r.input_tokens for r in requests]
        self.queries["output"] = [r.output_tokens for r in requests]
        self.clock = setup.new_clock()
        clock = self.clock[0]
        clock["window_start"], clock["window_end"] = window
        clock["record_batches"] = record_batches
        clock["step_tokens"] = self.options.step_tokens
        self._finished = np.zeros(len(requests) + 1, dtype=np.int64)
        self._continued = np.zeros(len(requests) + 1, dtype=np.int64)
        self.token_request = np.zeros((1 << 14) + 2 * len(requests), dtype=np.int32)
        self.token_time = np.zeros(len(self.token_request))
        self.batches = np.zeros(1 << 14 if record_batches else 2, dtype=BATCH)
        self._install(made)

    def _install(self, made: Setup) -> None:
        """Start with an empty cluster under a plan."""
        self.setup = made
        clock = self.clock[0]
        clock["copy_bytes"] = made.plan.model.activation_bytes_per_token
        self.routes = np.zeros((len(self.requests), longest_path(made) + 1), dtype=np.int32)
        self.kv = PagedKV(
            {name: int(made.nodes[i]["kv_capacity"]) for i, name in enumerate(made.names)},
            page_tokens=self.options.page_tokens,
        )
        self.longest_context = _longest_context(made, self.kv)
        self._peak = dict.fromkeys(made.names, 0)
        self._pieces, self._messages = pool(PIECE, 1 << 12), pool(MESSAGE, 1 << 10)
        clock["free_piece"], clock["free_pieces"] = 0, len(self._pieces)
        clock["free_message"], clock["free_messages"] = 0, len(self._messages)
        clock["heap"] = clock["fifo"] = clock["stalled"] = 0
        self._boxes = filled(QUEUE, 2 * len(made.nodes), ("head", "tail"))
        self._entering = np.zeros((made.plan.model.num_layers + 1, 2), dtype=np.int64)
        self._heap = setup.new_heap(1 << 10)
        made.nodes["since"] = clock["now"]
        self._use_policy(self._make_policy(made.plan))

    def _use_policy(self, policy: Policy) -> None:
        self.policy = policy
        self._loads = token_loads(policy, self.setup)
        averages = getattr(policy, "hop_averages", None)
        self._averages = averages() if averages is not None else (np.zeros(0), 0.0)
        if len(self._averages[0]) and not len(self._loads[2]):
            self._loads = (*self._loads[:2], token_loads(policy, self.setup, always=True)[2])
        self._ask_tokens = policy.token_loads() is None and type(policy).on_token is not Policy.on_token
        self._pack()

    def _pack(self) -> None:
        made = self.setup
        self.state = (
            made.nodes, made.links, self.queries, self.routes, self._pieces, self._messages, self._boxes,
            self.clock[0], self._heap[0], self._entering, self._heap[1],
            made.into,
        )  # fmt: skip

    def run(self, duration_s: float, watch: Callable[[float], None], every_s: float) -> None:
        """Simulate `duration_s` seconds, calling `watch(seconds)` every `every_s` of them."""
        mark = 0.0
        while True:
            arrival = self.requests[self.issued].arrival_s if self.issued < len(self.requests) else np.inf
            if self._offline and self.issued < len(self.requests):
                arrival = 0.0
            fault_at = self._agenda[0][0] if self._agenda else np.inf
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
                self._agenda.pop(0)[1](self)
                self._admit()
            else:
                self._arrive()
        self.clock["now"] = duration_s
        self._sample(duration_s)
        made = self.setup
        for i, name in enumerate(made.names):
            made.nodes[i]["kv_peak"] = self._peak[name]
            made.nodes[i]["kv_capacity"] = self.kv.capacity[name]

    def _sample(self, now: float) -> None:
        self.kv_samples.append((now, self.setup.names, np.array([self.kv.used(n) for n in self.setup.names])))
        self.waiting_samples.append((now, len(self._waiting)))

    def _arrive(self) -> None:
        while self.issued < len(self.requests) and (
            self._offline or self.requests[self.issued].arrival_s <= self.clock["now"][0]
        ):
            at = self.issued
            self.issued += 1
            request = self.requests[at]
            tokens = request.input_tokens + request.output_tokens
            if tokens > self.longest_context:
                self.rejected[at] = (
                    f"needs KV cache for {tokens} tokens; the largest pipeline holds {self.longest_context}"
                )
            else:
                self._waiting.append(at)
        self._admit()

    def _admit(self) -> None:
        """Let in the first requests of the queue, as far as there is room."""
        if self.clock["now"][0] < self._unavailable_until:
            return
        limit = self.options.max_in_flight
        while self._waiting and (limit is None or len(self._live) < limit):
            at = self._waiting[0]
            request = self._as_it_stands(at)
            pipeline = self.policy.route(request, self)
            if pipeline is not None and not self.kv.reserve(request, pipeline):
                self.policy.on_refused(request, pipeline)
                pipeline = None
            if pipeline is None:
                if not self._live and not self._agenda and all(self.setup.nodes["alive"][:-2]):
                    self._waiting.popleft()
                    self.rejected[at] = "the policy finds no pipeline for it in an empty cluster"
                    continue
                return
            self._waiting.popleft()
            self.policy.on_admitted(request, pipeline)
            self._launch(at, request, pipeline)

    def _as_it_stands(self, at: int) -> Request:
        """The request with what it has generated as part of its prompt."""
        original, done = self.requests[at], int(self.queries[at]["done"])
        return Request(at, original.arrival_s, original.input_tokens + done, original.output_tokens - done)

    def _launch(self, at: int, request: Request, pipeline: Pipeline) -> None:
        route = self.setup.route_of(pipeline)
        self.routes[at, : len(route)] = route
        self.queries[at]["hops"] = len(route)
        self._live[at] = request
        self.pipelines[at] = pipeline
        self.started.setdefault(at, float(self.clock["now"][0]))
        for stage in pipeline:
            self._peak[stage.node] = max(self._peak[stage.node], self.kv.used(stage.node))
        needed = request.input_tokens // self.options.chunk_tokens + 2
        if self.clock[0]["free_pieces"] < needed:
            self._pieces = self._extended(self._pieces, "free_piece", "free_pieces", needed)
            self._pack()
        ranged.launch(self.state, at, self.options.chunk_tokens)

    def _extended(self, records: np.ndarray, head: str, count: str, needed: int) -> np.ndarray:
        clock = self.clock[0]
        more = pool(records.dtype, max(needed, len(records)), first=len(records))
        more["next"][-1] = clock[head]
        clock[head] = len(records)
        clock[count] += len(more)
        return np.concatenate([records, more])

    def _advance(self, until: float) -> None:
        while True:
            needed = self.clock[0]["heap"] + 4 * len(self.setup.nodes) + len(self._messages)
            if needed >= len(self._heap[0]):
                self._heap = (np.resize(self._heap[0], 2 * needed), self._heap[1])
                self._pack()
            why = ranged.advance(  # type: ignore[call-arg]
                self.state, self.setup.curves, self.token_request, self.token_time, self.batches, self._finished,
                self._continued, *self._loads, *self._averages, self._ask_tokens, until,
            )  # fmt: skip
            if why == ranged.REACHED:
                return
            if why == ranged.FULL:
                self._grow()
                continue
            if self._ask_tokens:
                for at in self._continued[: self.clock[0]["continued"]]:
                    self.policy.on_token(self._live[int(at)])
            for at in self._finished[: self.clock[0]["finished"]]:
                self.finished[int(at)] = float(self.clock["now"][0])
                self._leave(int(at))
            if self.clock[0]["finished"]:
                self._admit()

    def _leave(self, at: int) -> None:
        request = self._live.pop(at)
        self.kv.release(request)
        self.policy.on_finished(request)

    def _grow(self) -> None:
        for name in ("token_request", "token_time"):
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros_like(old)]))
        if len(self.batches) > 2:
            self.batches = np.concatenate([self.batches, np.zeros_like(self.batches)])
        self._messages = self._extended(self._messages, "free_message", "free_messages", 4 * len(self.setup.links))
        self._pack()

    def _restart(self, victims: Sequence[int]) -> None:
        """Put live requests back at the head of the queue, to be prefilled again."""
        for at in victims:
            self.queries[at]["epoch"] += 1
            self.restarts[at] = self.restarts.get(at, 0) + 1
            self._leave(at)
        self._waiting.extendleft(sorted(victims, reverse=True))

    def node_dies(self, node: str) -> None:
        """The node stops."""
        ranged.kill(self.state, self.setup.number_of[node])

    def node_is_missed(self, node: str) -> None:
        """The coordinator knows: new flow over the survivors, and everything that used the node starts again."""
        plan = self.setup.plan
        victims = [at for at in self._live if any(s.node == node for s in self.pipelines[at])]
        self._restart(victims)
        left = plan.rearranged({name: span for name, span in plan.placement.items() if self.is_alive(name)})
        if left.flow_tokens_per_s > 0:
            self._use_policy(self._make_policy(left))

    def swap(self, fault: PlanSwap) -> None:
        """All start again under another plan, once it is loaded."""
        self._restart(sorted(self._live))
        reload_s = setup.load_seconds(fault.plan) if fault.reload_s is None else fault.reload_s
        self._unavailable_until = float(self.clock["now"][0]) + reload_s
        made, before = self._make_setup(fault.plan), self.setup
        self.batches_before += finished_batches(self)
        self.clock["batches"] = 0
        _carry_books(before, made)
        self._install(made)
        self._agenda.append((self._unavailable_until, lambda engine: None))
        self._agenda.sort(key=lambda entry: entry[0])

    @property
    def all_let_in(self) -> bool:
        """Whether every request of the workload was let in or turned away, so that none waits."""
        return self.issued == len(self.requests) and not self._waiting

    def arrived_s(self, at: int) -> float:
        """When the request arrived; offline, where nobody waits for it, when it was let in."""
        return self.started.get(at, 0.0) if self._offline else self.requests[at].arrival_s

    def generated(self, tokens: int) -> int:
        """Every token that came back counts, the first included."""
        return tokens

    def pipeline_of(self, at: int) -> Pipeline | None:
        """The pipeline that the request was given last."""
        return self.pipelines.get(at)

    def notes(self) -> list[str]:
        """What a reader of the report should know."""
        notes = []
        if self.waiting_samples and not all(self.setup.nodes["alive"][:-2]) and self._waiting and not self._live:
            dead = [name for name in self.setup.names if not self.is_alive(name)]
            notes.append(f"no pipeline is left without {', '.join(dead)}: {len(self._waiting)} requests wait")
        last_arrival = self.requests[self.issued - 1].arrival_s if self.issued else 0.0
        arriving = [waiting for time, waiting in self.waiting_samples if time <= last_arrival + 1.0]
        if not self._offline and len(arriving) >= 4:
            half, last = arriving[len(arriving) // 2], arriving[-1]
            if last > 10 and last > GROWING * half:
                notes.append(f"overload: {last} requests wait at {last_arrival:.0f} s, {half} did halfway; it grows")
        return notes

    def is_alive(self, node: str) -> bool:
        """Whether the node serves requests."""
        return bool(self.setup.nodes[self.setup.number_of[node]]["alive"])

    def queue_length(self, node: str) -> int:
        """Pieces that wait at the node."""
        index = self.setup.number_of[node]
        return int(self._boxes["count"][2 * index : 2 * index + 2].sum())

    def now_s(self) -> float:
        """Seconds since the start."""
        return float(self.clock["now"][0])

    def has_room(self, node: str, tokens: int, num_layers: int) -> bool:
        """Whether the node's free pages hold `tokens` in `num_layers` layers."""
        return self.kv.has_room(node, tokens, num_layers)


def _carry_books(before: Setup, made: Setup) -> None:
    """Nodes and links that both plans use go on with what they have counted."""
    for i, name in enumerate(made.names):
        if name in before.names:
            old = before.nodes[before.number_of[name]]
            for field in ("busy_s", "blocked_s", "steps", "prefill_tokens", "decode_tokens"):
                made.nodes[i][field] = old[field]
    for i, edge in enumerate(made.edges):
        if edge in before.link_index:
            for field in ("busy", "bytes", "messages"):
                made.links[i][field] = before.links[before.link_index[edge]][field]


def _agenda(faults: Sequence[Fault]) -> list[tuple[float, Callable[[Serving], None]]]:
    entries: list[tuple[float, Callable[[Serving], None]]] = []
    for fault in faults:
        if isinstance(fault, NodeDies):
            entries.append((fault.at_s, lambda engine, f=fault: engine.node_dies(f.node)))  # type: ignore[misc]
            entries.append((fault.at_s + fault.detection_s, lambda engine, f=fault: engine.node_is_missed(f.node)))  # type: ignore[misc]
        elif isinstance(fault, NodeSlows):
            entries.append((fault.at_s, lambda engine, f=fault: _slow(engine, f)))  # type: ignore[misc]
        elif isinstance(fault, LinkDegrades):
            entries.append((fault.at_s, lambda engine, f=fault: _degrade(engine, f)))  # type: ignore[misc]
        else:
            entries.append((fault.at_s, lambda engine, f=fault: engine.swap(f)))  # type: ignore[misc]
    return entries


def _slow(engine: Serving, fault: NodeSlows) -> None:
    engine.setup.nodes["slowdown"][engine.setup.number_of[fault.node]] = fault.factor


def _degrade(engine: Serving, fault: LinkDegrades) -> None:
    link = engine.setup.links[engine.setup.link_index[fault.source, fault.target]]
    link["bandwidth"] *= fault.bandwidth_factor
    link["latency"] += fault.extra_latency_s


def check_faults(faults: Sequence[Fault], made: Setup) -> None:
    """Raise InputError for a fault of a node or link that the plan does not have."""
    for fault in faults:
        if isinstance(fault, NodeDies | NodeSlows) and fault.node not in made.names:
            raise InputError("expected a node of the plan", where="faults", field="node", value=fault.node)
        if isinstance(fault, LinkDegrades) and (fault.source, fault.target) not in made.link_index:
            raise InputError(
                "expected a link that the plan can use", where="faults", field="link",
                value=[fault.source, fault.target],
            )  # fmt: skip
        if not fault.at_s >= 0:
            raise InputError("expected a time of at least 0 s", where="faults", field="at_s", value=fault.at_s)


def _longest_context(made: Setup, kv: PagedKV) -> int:
    """Tokens of context that the roomiest pipeline of an empty cluster can hold."""
    ends = {name: int(n["start"] + n["layers"]) for name, n in zip(made.names, made.nodes, strict=False)}
    widest = dict.fromkeys([*made.names, COORDINATOR], 0)
    into: dict[str, list[str]] = {}
    for source, target in made.edges:
        into.setdefault(target, []).append(source)
    for name in [*sorted(made.names, key=lambda n: ends[n]), COORDINATOR]:
        for source in into.get(name, []):
            room = 1 << 40 if source == COORDINATOR else widest[source]
            if name != COORDINATOR:
                layers = ends[name] - (0 if source == COORDINATOR else ends[source])
                room = min(room, kv.capacity[name] // layers * kv.page_tokens)
            widest[name] = max(widest[name], room)
    return widest[COORDINATOR]


__all__ = ["Options", "Serving", "check_faults"]
