"""One simulation as a record: plan, requests and rules, so that figures can change a field and compare two of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helix_kit.errors import InputError
from helix_kit.search.options import Execution, Mode
from helix_kit.simulator import whole_run

if TYPE_CHECKING:
    from helix_kit.flow import Edge
    from helix_kit.placement.plan import Plan
    from helix_kit.report import Run
    from helix_kit.simulator import Feed
    from helix_kit.workload import Workload


@dataclass(frozen=True)
class Simulation:
    """The arguments of `helix_kit.simulate`; the defaults are the published rules and Helix's scheduler."""

    plan: Plan
    workload: Workload
    mode: Mode
    warmup_s: float
    duration_s: float
    policy: str = "helix"
    execution: Execution = "layerwise"
    seed: int = 0
    kv_capacity: Mapping[str, int] | None = None
    """Node -> layer-tokens, in place of the profile's."""
    links: tuple[Edge, ...] | None = None
    """The links that may be used; None: those that `simulate` chooses."""
    feed: Feed | None = None
    """How requests of an offline run are taken up; None: as the policy does by default."""

    def run(self) -> Run:
        """Simulate it. Ctrl-C ends the experiment: a partial run would count as a whole one."""
        return whole_run(
            self.plan, self.workload, mode=self.mode, policy=self.policy, execution=self.execution,
            duration_s=self.duration_s, warmup_s=self.warmup_s, seed=self.seed, kv_capacity=self.kv_capacity,
            links=self.links, feed=self.feed,
        )  # fmt: skip


def run_together(simulations: list[Simulation]) -> Run:
    """Simulate the separate subclusters of one cluster: throughputs are added, latencies pooled.

    Raises InputError where an offline stream ends within a run: its figures would not be those of a full cluster.
    """
    from helix_kit.report import merge

    runs = [simulation.run() for simulation in simulations]
    for simulation, run in zip(simulations, runs, strict=True):
        if "ran_dry_s" in run.facts:
            raise InputError(
                f"expected requests that last for {run.window[1]:g} s; they ran dry at {run.facts['ran_dry_s']:.0f} s",
                where=f"{simulation.plan.method} plan on {simulation.plan.cluster.name}", field="workload",
                value=f"{len(simulation.workload)} requests",
            )  # fmt: skip
    return merge(runs) if len(runs) > 1 else runs[0]
