"""Clusters, plans, traffic and faults made by hypothesis, for the invariants in simulation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from hypothesis import strategies as st

from helix_kit.cluster import Cluster
from helix_kit.model import Model
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.simulator import LinkDegrades, NodeDies, NodeSlows
from helix_kit.workload import Workload

GPUS = ("A100-40G", "L4", "T4", "V100-16G")
LAYERS = 8
POLICIES = ("helix", "swarm", "random", "shortest_queue")


@dataclass(frozen=True)
class Case:
    """What one simulation is made of; prints small."""

    plan: Plan
    workload: Workload
    policy: str
    mode: str
    seed: int
    faults: tuple = ()

    def __repr__(self):
        rows = [(r.arrival_s, r.input_tokens, r.output_tokens) for r in self.workload]
        return (
            f"Case({dict(self.plan.placement)}, {rows}, "
            f"{self.policy}, {self.mode}, seed={self.seed}, faults={self.faults})"
        )


@lru_cache(maxsize=256)
def make_plan(spans: tuple[tuple[int, int], ...], gpus: tuple[str, ...], fast: bool) -> Plan:
    nodes = [{"name": f"n{i}", "gpu": gpu, "region": "ab"[i % 2]} for i, gpu in enumerate(gpus)]
    between = {"bandwidth_gbps": 10 if fast else 0.1, "latency_ms": 10}
    cluster = Cluster.model_validate(
        {"name": "made", "coordinator": {"region": "a"}, "nodes": nodes,
         "network": {"within_region": {"bandwidth_gbps": 10, "latency_ms": 1}, "between_regions": between}}
    )  # fmt: skip
    model = Model.preset("SmolLM2-135M").model_copy(update={"name": "made", "num_layers": LAYERS, "layer_gb": 0.5})
    problem = Problem.of(cluster, model)
    return Plan.from_placement(problem, {f"n{i}": span for i, span in enumerate(spans)}, method="made")


@st.composite
def plans(draw):
    """A chain that covers all layers, and more nodes with ranges of their own, often overlapping."""
    cuts = sorted(draw(st.sets(st.integers(1, LAYERS - 1), max_size=3)))
    bounds = [0, *cuts, LAYERS]
    spans = list(pairwise(bounds))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, LAYERS - 1))
        spans.append((start, draw(st.integers(start + 1, LAYERS))))
    gpus = tuple(draw(st.sampled_from(GPUS)) for _ in spans)
    return make_plan(tuple(spans), gpus, draw(st.booleans()))


@st.composite
def workloads(draw):
    count = draw(st.integers(1, 25))
    rows, now = [], 0.0
    for _ in range(count):
        now += draw(st.sampled_from([0.0, 0.01, 0.3, 2.0]))
        rows.append((now, draw(st.integers(1, 1500)), draw(st.integers(1, 30))))
    return Workload.of(rows)


@st.composite
def faults_of(draw, plan):
    made = []
    for _ in range(draw(st.integers(0, 3))):
        at, node = draw(st.floats(0, 20)), draw(st.sampled_from(list(plan.placement)))
        kind = draw(st.integers(0, 2))
        if kind == 0:
            made.append(NodeDies(node, at, draw(st.sampled_from([0.0, 0.5, 3.0]))))
        elif kind == 1:
            made.append(NodeSlows(node, at, draw(st.sampled_from([0.5, 4.0]))))
        else:
            edge = draw(st.sampled_from(list(plan.flow_edges)))
            made.append(LinkDegrades(*edge, at, draw(st.sampled_from([0.05, 1.0])), 0.02))
    # A node dies at most once.
    dead = set()
    kept = []
    for fault in made:
        if isinstance(fault, NodeDies):
            if fault.node in dead:
                continue
            dead.add(fault.node)
        kept.append(fault)
    return tuple(kept)


@st.composite
def cases(draw, faults=True):
    plan = draw(plans())
    return Case(
        plan, draw(workloads()), draw(st.sampled_from(POLICIES)), draw(st.sampled_from(["online", "offline"])),
        draw(st.integers(0, 5)), draw(faults_of(plan)) if faults else (),
    )  # fmt: skip
