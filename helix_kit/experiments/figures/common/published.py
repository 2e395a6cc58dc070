"""The published simulations, ready to run: layouts, links, flow splits, offered loads, request streams and results.

``data/published`` holds the inputs of each of them, taken from the Helix artifact (ASPLOS'25), in our own format.

>>> run = published_run("single", "llama2-70b", "helix", "offline")
>>> run.values("simulation")["decode_tokens_per_s"]
252.1
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from helix_kit import _files
from helix_kit.cluster import Cluster
from helix_kit.experiments.figures.common.rows import Case
from helix_kit.experiments.figures.common.simulation import Execution, Mode, Simulation, run_together
from helix_kit.flow import Flow
from helix_kit.model import Model
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.report import Run
from helix_kit.simulator import Feed
from helix_kit.workload import Workload

ONLINE_WINDOW_S = (0.0, 1800.0)
OFFLINE_WINDOW_S = (60.0, 600.0)
"""Warm-up and duration of the published measurements."""
LENGTHS_IN_SAMPLER = 16657
"""The published sampler draws each request from this many, with the generator that the random schedulers also use."""


@dataclass(frozen=True)
class Subcluster:
    """A cluster, or one of the separate subclusters that a method splits it into, with its share of the requests."""

    layout: str
    """Name of the layout: placement, links and KV capacities."""
    policy: str
    """The scheduler."""
    name: str = ""
    stream: str = "offline"
    """The file of requests, unless requests are offered at a rate."""
    offered_tokens_per_s: int | None = None
    """Rate of an online run."""
    in_flight: int | None = None
    """Requests in flight of an offline run whose scheduler does not limit them by the KV cache."""

    def requests(self) -> Workload:
        """The published requests."""
        return _stream(self.stream if self.offered_tokens_per_s is None else f"online_{self.offered_tokens_per_s}")

    def feed(self, mode: Mode) -> Feed | None:
        """How requests are taken up; None for the default."""
        if mode == "online" or self.policy == "helix":
            return None
        assert self.in_flight is not None, f"{self.layout}: no published number of requests in flight"
        shared_draws = None if self.policy == "swarm" else LENGTHS_IN_SAMPLER
        return Feed(self.in_flight, kv_mark=None, shared_draws=shared_draws)


@dataclass(frozen=True)
class PublishedRun:
    """One row of the published evaluation: a method on a cluster, or on several separate subclusters of it."""

    section: str
    setup: str
    model: str
    method: str
    mode: Mode
    subclusters: tuple[Subcluster, ...]

    @property
    def case(self) -> Case:
        """What the run belongs to, without the method."""
        return Case(self.section, self.setup, self.model, self.mode)

    @property
    def name(self) -> str:
        """A short name."""
        return f"{self.section} {self.setup} {self.model} {self.method} {self.mode}"

    def values(self, source: Literal["simulation", "prototype"]) -> dict[str, float]:
        """Published values by metric, for the whole cluster."""
        key = (self.section, self.setup, self.model, self.method, self.mode, source)
        return {
            row["metric"]: float(row["value"])
            for row in _results()
            if key == tuple(row[c] for c in ("section", "setup", "model", "method", "mode", "source"))
            and row["part"] in {"", "all"}
        }

    def plans(self) -> list[Plan]:
        """The plan of each subcluster, with the published flow if there is one."""
        return [layout_plan(subcluster.layout, self.model) for subcluster in self.subclusters]

    def simulations(self, *, execution: Execution = "layerwise", seed: int = 0) -> list[Simulation]:
        """The simulation of each subcluster: published plan, requests, links, KV capacities and feed."""
        warmup_s, duration_s = measurement_window_s(self.mode)
        simulations = []
        for subcluster in self.subclusters:
            layout = _tables()["layouts"][subcluster.layout]
            simulations.append(
                Simulation(
                    layout_plan(subcluster.layout, self.model),
                    subcluster.requests(),
                    self.mode,
                    warmup_s,
                    duration_s,
                    policy=subcluster.policy,
                    execution=execution,
                    seed=seed,
                    kv_capacity=layout["kv_layer_tokens"],
                    links=tuple((source, target) for source, target in layout["links"]),
                    feed=subcluster.feed(self.mode),
                )
            )
        return simulations

    def run(self, *, execution: Execution = "layerwise", seed: int = 0) -> Run:
        """Simulate it: throughputs of the subclusters are added, latencies pooled."""
        return run_together(self.simulations(execution=execution, seed=seed))


def measurement_window_s(mode: Mode) -> tuple[float, float]:
    """Warm-up and duration in s of the published measurements."""
    return ONLINE_WINDOW_S if mode == "online" else OFFLINE_WINDOW_S


@cache
def _tables() -> dict[str, Any]:
    return _files.read_json(_files.data_dir() / "published" / "simulations.json")


@cache
def _results() -> tuple[dict[str, str], ...]:
    path = _files.data_dir() / "published" / "results.csv"
    return tuple(csv.DictReader(_files.read_text(path).splitlines()))


@cache
def published_runs() -> tuple[PublishedRun, ...]:
    """All published simulations, in the order of the paper."""
    runs = []
    for entry in _tables()["runs"]:
        fields = {key: value for key, value in entry.items() if key != "parts"}
        runs.append(PublishedRun(**fields, subclusters=tuple(Subcluster(**part) for part in entry["parts"])))
    return tuple(sorted(runs, key=lambda r: (r.section, r.setup, r.model, r.mode)))


def published_run(setup: str, model: str, method: str, mode: str) -> PublishedRun:
    """One of `published_runs`."""
    return next(r for r in published_runs() if (r.setup, r.model, r.method, r.mode) == (setup, model, method, mode))


@cache
def layout_plan(layout_name: str, model_name: str) -> Plan:
    """A published placement as a plan."""
    layout = _tables()["layouts"][layout_name]
    cluster = Cluster.preset(layout["cluster"])
    missing = [name for name in layout["placement"] if name not in {n.name for n in cluster.nodes}]
    if missing:
        # One published pipeline counts machines that its cluster does not have.
        data = cluster.model_dump(mode="json", exclude_none=True)
        data["nodes"] += [
            {"name": name, "gpu": name.rsplit("-", 1)[0], "region": cluster.coordinator.region} for name in missing
        ]
        cluster = Cluster.model_validate(data)
    problem = Problem.of(cluster, Model.preset(model_name))
    edges = {(a, b): rate for a, b, rate in layout.get("flow", [])}
    total = sum(rate for (a, _), rate in edges.items() if a == "coordinator")
    flow = Flow(total, edges, {}, ()) if edges else None
    placement = {name: (start, end) for name, (start, end) in layout["placement"].items()}
    return Plan.from_placement(problem, placement, method="published", flow=flow)


STREAM_SEEDS = range(6)
"""Seeds of the published sampler whose first 8,000 lengths are stored; the published results are of seed 0."""


@cache
def offline_requests(seed: int = 0) -> Workload:
    """The requests of offline runs that the published sampler draws with `seed` (0: the published stream)."""
    if seed == 0:
        return _stream("offline")
    path = _files.data_dir() / "published" / "streams" / "offline_seeds.csv"
    rows = csv.DictReader(_files.read_text(path).splitlines())
    lengths = ((0.0, int(r[f"input_{seed}"]), int(r[f"output_{seed}"])) for r in rows)
    return Workload.of(lengths, f"published sampler, seed {seed}")


@cache
def _stream(name: str) -> Workload:
    path = _files.data_dir() / "published" / "streams" / f"{name}.csv"
    if name.startswith("online"):
        return Workload.from_csv(path)
    rows = csv.DictReader(_files.read_text(path).splitlines())
    return Workload.of(((0.0, int(r["input_tokens"]), int(r["output_tokens"])) for r in rows), name)
