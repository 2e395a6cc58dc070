"""The published simulations, ready to run: layouts, links, flow splits, offered loads, request streams and results.

``data/published`` holds what each of them ran on, from the Helix artifact (ASPLOS'25) in our own form.

>>> run = find("single", "llama2-70b", "helix", "offline")
>>> run.published("simulation")["decode_tokens_per_s"]
252.1
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from helix_kit import _files
from helix_kit.cluster import Cluster
from helix_kit.flow import Flow
from helix_kit.model import Model
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.report import Run, merge
from helix_kit.simulator import Feed, simulate
from helix_kit.workload.workload import Workload

ONLINE_WINDOW_S = (0.0, 1800.0)
OFFLINE_WINDOW_S = (60.0, 600.0)
"""Warm-up and duration of the published measurements."""
LENGTHS_IN_SAMPLER = 16657
"""The published sampler draws one of this many requests with the generator that the random schedulers use too."""


@dataclass(frozen=True)
class PublishedRun:
    """One row of the published evaluation: a method on a cluster, in one or several separate parts."""

    section: str
    setup: str
    model: str
    method: str
    mode: Literal["online", "offline"]
    parts: tuple[dict[str, Any], ...]

    @property
    def policy(self) -> str:
        """The scheduler of the first part."""
        return str(self.parts[0]["policy"])

    @property
    def name(self) -> str:
        """A short name."""
        return f"{self.section} {self.setup} {self.model} {self.method} {self.mode}"

    def published(self, source: Literal["simulation", "prototype"]) -> dict[str, float]:
        """Published values by metric; the whole cluster's, not the parts'."""
        key = (self.section, self.setup, self.model, self.method, self.mode, source)
        return {
            row["metric"]: float(row["value"])
            for row in results()
            if key == tuple(row[c] for c in ("section", "setup", "model", "method", "mode", "source"))
            and row["part"] in {"", "all"}
        }

    def plans(self) -> list[Plan]:
        """The plan of each part, with the published flow where there was one."""
        return [plan_of(part["layout"], self.model) for part in self.parts]

    def calls(self, *, execution: Literal["layerwise", "range"] = "layerwise", seed: int = 0) -> list[dict[str, Any]]:
        """The arguments of `simulate` for each part: published plan, stream, links, KV capacities and feed."""
        made = []
        for part in self.parts:
            layout = _tables()["layouts"][part["layout"]]
            warmup_s, duration_s = window_of(self.mode)
            feed = None
            if self.mode == "offline" and part["policy"] != "helix":
                shared = None if part["policy"] == "swarm" else LENGTHS_IN_SAMPLER
                feed = Feed(part["in_flight"], kv_mark=None, shared_draws=shared)
            made.append(
                {
                    "plan": plan_of(part["layout"], self.model),
                    "workload": stream(part),
                    "mode": self.mode,
                    "policy": part["policy"],
                    "execution": execution,
                    "warmup_s": warmup_s,
                    "duration_s": duration_s,
                    "seed": seed,
                    "kv_capacity": layout["kv_layer_tokens"],
                    "links": [(link[0], link[1]) for link in layout["links"]],
                    "feed": feed,
                }
            )
        return made

    def run(self, *, execution: Literal["layerwise", "range"] = "layerwise", seed: int = 0) -> Run:
        """Simulate it: throughputs of the parts added, latencies pooled."""
        runs = [simulate(**call) for call in self.calls(execution=execution, seed=seed)]
        return merge(runs) if len(runs) > 1 else runs[0]


def window_of(mode: str) -> tuple[float, float]:
    """Warm-up and duration in s of the published measurements in `mode`."""
    return ONLINE_WINDOW_S if mode == "online" else OFFLINE_WINDOW_S


@cache
def _tables() -> dict[str, Any]:
    return _files.read_json(_files.data_dir() / "published" / "simulations.json")


@cache
def results() -> tuple[dict[str, str], ...]:
    """Rows of ``results.csv``."""
    path = _files.data_dir() / "published" / "results.csv"
    return tuple(csv.DictReader(_files.read_text(path).splitlines()))


@cache
def runs() -> tuple[PublishedRun, ...]:
    """All published simulations, in the order of the paper."""
    made = [PublishedRun(**{**entry, "parts": tuple(entry["parts"])}) for entry in _tables()["runs"]]
    return tuple(sorted(made, key=lambda r: (r.section, r.setup, r.model, r.mode)))


def find(setup: str, model: str, method: str, mode: str) -> PublishedRun:
    """One of `runs`."""
    return next(r for r in runs() if (r.setup, r.model, r.method, r.mode) == (setup, model, method, mode))


@cache
def plan_of(layout_name: str, model_name: str) -> Plan:
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


@cache
def _stream(name: str) -> Workload:
    path = _files.data_dir() / "published" / "streams" / f"{name}.csv"
    if name.startswith("online"):
        return Workload.from_csv(path)
    rows = csv.DictReader(_files.read_text(path).splitlines())
    return Workload.of(((0.0, int(r["input_tokens"]), int(r["output_tokens"])) for r in rows), name)


def stream(part: dict[str, Any]) -> Workload:
    """The published request stream of a part."""
    if "offered_tokens_per_s" in part:
        return _stream(f"online_{part['offered_tokens_per_s']}")
    return _stream(part.get("stream", "offline"))
