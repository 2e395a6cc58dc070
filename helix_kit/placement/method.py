"""The contract of placement methods: a `Task` goes in, a `Placed` comes out.

A method is a function from `Task` to `Placed`. `helix_kit.placement.methods.METHODS` lists methods by name, each with
the options that it alone takes; `register_method` adds one. The planner runs a method under a clock, computes the exact
maximum flow of its placement, and proves bounds: a method only has to choose layer ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from helix_kit.flow import Edge, Flow, Placement
from helix_kit.placement.groups import Group
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.placement.watch import Watch

FlowSplit = Literal["balanced", "any"]


@dataclass(frozen=True)
class PlanOptions:
    """Every option of `helix_kit.plan` and `plan_problem` but the descriptions, the objective and the callbacks.

    Parameters
    ----------
    method
        A name of `helix_kit.placement.methods.method_names`, ``module:function`` or ``file.py:function``.
    solver
        ``highs``, ``glpk`` or ``gurobi``, for the methods that solve programs.
    time_limit_s
        Seconds after which the best plan found is returned.
    seed
        Seed of the solvers and of random methods.
    partial_inference
        Whether a request may enter a node's range after its first layer.
    flow_split
        Which of the maximum flows requests follow: ``balanced`` loads nodes evenly, ``any`` is the first one that
        networkx finds on our network. The published program takes the first one too, on a network of another order.
    max_stages
        The largest number of nodes that a request may pass (method ``pattern``).
    pins
        Node name -> layer range [start, end) that it must hold (method ``pattern``).
    base
        A plan in use, to be changed only where that pays.
    price_per_gb
        Tokens/s that each GB of weights loaded anew must gain, when there is a `base`.
    patience_s
        Seconds without a better plan after which the search ends although time and a gap are left (five times as many
        while the pattern program has not ended); None: it does not.
    deterministic
        Whether to count work in place of seconds (method ``pattern``, solver ``highs``, both objectives). The same
        command then gives the same bytes on every machine, and may take longer or shorter than `time_limit_s`.
    prove
        Whether to search for bounds beyond those that the method finds on its way.
    degree
        Links kept at each node, the fastest first; None keeps all (method ``paper-milp``).
    initial
        Whether the program starts from the best heuristic (method ``paper-milp``).
    mip_gap
        Relative gap at which the solver stops (method ``paper-milp``).
    tighten
        Whether coefficients are cut down to a proven bound (method ``paper-milp``).
    write_lp
        File that the program is written to, with readable names (method ``paper-milp``).

    Examples
    --------
    >>> PlanOptions(time_limit_s=5.0).solver
    'highs'
    """

    method: str = "pattern"
    solver: str = "highs"
    time_limit_s: float = 60.0
    seed: int = 0
    partial_inference: bool = True
    flow_split: FlowSplit = "balanced"
    max_stages: int | None = None
    pins: Mapping[str, tuple[int, int]] | None = None
    base: Plan | None = None
    price_per_gb: float = 0.0
    patience_s: float | None = None
    deterministic: bool = False
    prove: bool = True
    degree: int | None = None
    initial: bool = True
    mip_gap: float = 1e-4
    tighten: bool = True
    write_lp: str | Path | None = None


@dataclass
class Placed:
    """What a method returns: a placement, and what it knows about it.

    Examples
    --------
    >>> Placed({"T4-0": (0, 4), "T4-1": (4, 8)}).bounds
    {}
    """

    placement: Placement
    """Node name -> layer range [start, end)."""
    links: set[Edge] | None = None
    """Links that requests may take; None: every link between layer ranges that follow each other."""
    bounds: dict[str, float] = field(default_factory=dict)
    """Name -> proven upper bound on the flow of any placement, in tokens/s."""
    notes: list[str] = field(default_factory=list)
    """Sentences for `Plan.notes`."""
    solver: str | None = None
    """The solver that was used; None when the method used none."""


@dataclass
class Task:
    """What a method is given.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> from helix_kit.placement.groups import groups_of
    >>> problem = Problem.of(Cluster.preset("single24"), Model.preset("llama2-70b"))
    >>> task = Task(problem, Watch(10.0), groups_of(problem))
    >>> task.options.seed, [group.size for group in task.groups]
    (0, [8, 12, 4])
    """

    problem: Problem
    """Cluster, model and throughputs."""
    watch: Watch
    """The clock. A method returns what it has once ``watch.is_over()``."""
    groups: list[Group]
    """The problem's interchangeable nodes."""
    options: PlanOptions = field(default_factory=PlanOptions)
    """The options, checked."""

    def max_flow(
        self, placement: Mapping[str, tuple[int, int]], links: set[Edge] | None = None, split: FlowSplit = "any"
    ) -> Flow:
        """An exact maximum flow of a placement under this task's rule for partial inference."""
        return self.problem.max_flow(
            placement, partial_inference=self.options.partial_inference, links=links, split=split
        )


def nothing_to_load() -> None:
    """For methods that need no library of their own."""


@dataclass(frozen=True)
class Method:
    """An entry in the table of methods.

    Examples
    --------
    >>> Method(lambda task: Placed({}), ("max_stages",)).options
    ('max_stages',)
    """

    place: Callable[[Task], Placed]
    """The method itself."""
    options: tuple[str, ...] = ()
    """Names of the fields of `PlanOptions` that this method takes and others do not."""
    load: Callable[[], None] = nothing_to_load
    """Imports what the method needs. It is called before the clock starts, so that a limit of a second is searched."""


__all__ = ["FlowSplit", "Method", "Placed", "PlanOptions", "Task"]
