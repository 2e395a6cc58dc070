"""A plan: which node holds which layers, the flow it carries, and how good that is against a proven bound."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from helix_kit import _files
from helix_kit._summary import Summarised, number, percent
from helix_kit._versions import package_versions
from helix_kit.cluster import Cluster
from helix_kit.errors import InputError
from helix_kit.flow import Edge, Flow, Pipeline, decompose
from helix_kit.model import Model
from helix_kit.placement.diff import PlanDiff, PlanFigures, change_notes, node_changes
from helix_kit.placement.plan_check import (
    CHECKSUM,
    DERIVED,
    check_names,
    check_plan,
    check_problem,
    checksum_of,
    is_unedited,
)
from helix_kit.placement.problem import Problem
from helix_kit.placement.served import Served
from helix_kit.profiles import Profile, how_divided
from helix_kit.profiles.engines import EngineRecord
from helix_kit.typical_request import PUBLISHED_LENGTHS, TRACE_LENGTHS, MeanLengths

SCHEMA_VERSION = 1


class Plan(Summarised, BaseModel):
    """The result of planning, complete in itself: it carries cluster, model and profiles.

    Attributes
    ----------
    schema_version
        Version of the file format.
    cluster, model, profiles
        The problem: the descriptions, and the profile of each kind of node.
    method, objective, solver
        How the plan was made; `solver` is None where none was used.
    placement
        Node name -> layer range [start, end).
    lengths
        Mean lengths of the requests that the plan is for. Files from before the field are read as what they assumed:
        the published lengths, and a cluster with ``throughput: published``.
    partial_inference
        Whether a request may enter a node's range after its first layer.
    flow_tokens_per_s, bound_tokens_per_s
        The maximum flow, and the least proven bound on the flow of any placement.
    bounds
        Every proven bound by its label, in tokens/s: see `helix_kit.placement.bounds`.
    gap
        (bound - flow) / flow. 0 means proven optimal.
    seconds, seed
        How long it took, and the seed.
    node_throughput_tokens_per_s
        T of each placed node with the layers it holds.
    flow
        (source, target, tokens/s) of each link in use.
    progress
        (seconds, best value, bound) over the solve, in tokens/s.
    notes
        Remarks of the method, in sentences.
    versions
        Versions of the packages that matter.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> cluster = Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "H100-80G", "count": 2}]})
    >>> problem = Problem.of(cluster, Model.preset("llama-30b"))
    >>> plan = Plan.from_placement(problem, {"H100-80G-0": (0, 30), "H100-80G-1": (30, 60)}, method="hand")
    >>> [stage.node for stage in plan.pipelines[0][0]]
    ['H100-80G-0', 'H100-80G-1']
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    schema_version: int = SCHEMA_VERSION
    cluster: Cluster
    model: Model
    profiles: dict[str, Profile]
    method: str
    objective: str = "flow"
    solver: str | None = None
    placement: dict[str, tuple[int, int]]
    lengths: MeanLengths = TRACE_LENGTHS
    engine: EngineRecord | None = None
    """The serving engine that the plan is for, which `simulate` and `sweep` then take; None: our runtime."""
    partial_inference: bool = True
    flow_tokens_per_s: float
    bound_tokens_per_s: float
    bounds: dict[str, float] = Field(default_factory=dict)
    gap: float
    seconds: float
    seed: int = 0
    node_throughput_tokens_per_s: dict[str, float]
    flow: tuple[tuple[str, str, float], ...]
    flow_split: Literal["balanced", "any"] = "balanced"
    """Which of the maximum flows `flow` is: the one that loads nodes evenly, or the first that is found."""
    progress: tuple[tuple[float, float, float], ...] = ()
    served: Served | None = None
    """What the plan served in the simulator; None for objective ``flow``."""
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A plan for our runtime has no field `engine`: its file stays as it was before there were engines."""
        data: dict[str, Any] = handler(self)
        if self.engine is None:
            data.pop("engine", None)
        return data

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, data: Any) -> Any:
        """The fields of a file: without the checksum, and with what files from before `lengths` assumed."""
        if not isinstance(data, dict):
            return data
        cluster = data.get("cluster")
        if isinstance(cluster, dict) and "lengths" not in data:
            data = {**data, "lengths": PUBLISHED_LENGTHS, "cluster": {"throughput": "published", **cluster}}
        return {name: value for name, value in data.items() if name != CHECKSUM}

    @model_validator(mode="after")
    def _matches_its_cluster(self) -> Plan:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"schema_version {self.schema_version}: this version reads {SCHEMA_VERSION}")
        check_names(self)
        return self

    @classmethod
    def from_placement(
        cls,
        problem: Problem,
        placement: dict[str, tuple[int, int]],
        *,
        method: str,
        bound_tokens_per_s: float | None = None,
        flow: Flow | None = None,
        **fields: Any,
    ) -> Plan:
        """A plan for a placement made by hand or by a method.

        Parameters
        ----------
        problem
            Cluster, model and throughputs.
        placement
            Node name -> layer range [start, end).
        method
            Name of what made the placement.
        bound_tokens_per_s
            A proven bound on the flow. None: the published compute bound.
        flow
            The flow of the placement. None: it is computed.
        fields
            The plan's other fields, such as `partial_inference` or ``flow_split="any"``.

        Raises
        ------
        InputError
            When the placement names an unknown node or a range outside the model.
        """
        problem.check_placement(placement)
        placed = {n.name: placement[n.name] for n in problem.cluster.nodes if n.name in placement}
        flow = flow or problem.max_flow(
            placed,
            partial_inference=fields.get("partial_inference", True),
            split=fields.get("flow_split", "balanced"),
        )
        bound = problem.compute_bound if bound_tokens_per_s is None else bound_tokens_per_s
        value = flow.tokens_per_s
        return cls(
            cluster=problem.cluster,
            model=problem.model,
            profiles=problem.profiles,
            method=method,
            placement=placed,
            lengths=problem.lengths,
            engine=problem.engine,
            flow_tokens_per_s=value,
            bound_tokens_per_s=bound,
            gap=max(0.0, bound - value) / value if value > 0 else float("inf"),
            seconds=fields.pop("seconds", 0.0),
            node_throughput_tokens_per_s=problem.node_throughput(placed),
            flow=tuple((a, b, f) for (a, b), f in flow.edges.items()),
            versions=package_versions(),
            **fields,
        )

    def rearranged(
        self,
        placement: dict[str, tuple[int, int]],
        *,
        problem: Problem | None = None,
        method: str | None = None,
        bound_tokens_per_s: float | None = None,
    ) -> Plan:
        """A plan of another placement by this plan's rules: partial inference, split of the flow, and seed.

        Parameters
        ----------
        placement
            Node name -> layer range [start, end).
        problem
            Another cluster or model. None: this plan's.
        method
            Name of what made the placement. None: this plan's method.
        bound_tokens_per_s
            A proven bound on the flow. None: the published compute bound.
        """
        return Plan.from_placement(
            problem or self.problem,
            placement,
            method=method or self.method,
            bound_tokens_per_s=bound_tokens_per_s,
            partial_inference=self.partial_inference,
            flow_split=self.flow_split,
            seed=self.seed,
        )

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """The plan in a JSON file written by `save`, or edited since.

        If the file was edited, what follows from the placement is worked out again and compared: a file whose flow its
        machines cannot carry is an InputError. A file may leave out the fields of
        `helix_kit.placement.plan_check.DERIVED`; they are then computed.
        """
        data = _files.read_json(path)
        if isinstance(data, dict) and not {"cluster", "placement"} & set(data):
            expected = "expected a plan, as `helix-kit plan -o FILE` writes it"
            raise InputError(expected, where=path, field="fields", value=", ".join(data)[:100])
        missing = [name for name in DERIVED if isinstance(data, dict) and name not in data]
        if not missing:
            plan = _files.validate(cls, data, path)
            if not is_unedited(data):
                check_plan(plan, path, has_checksum=CHECKSUM in data)
            return plan
        unknown: dict[str, Any] = {
            **dict.fromkeys(DERIVED, 0.0),
            "flow": (),
            "node_throughput_tokens_per_s": {},
        }
        plan = _files.validate(cls, {**data, **unknown}, path)
        check_problem(plan, path)
        return plan._computed()

    def _computed(self) -> Plan:
        """This plan with its flow computed. Bounds and served figures are dropped: they belong to another flow."""
        return Plan.from_placement(
            self.problem,
            self.placement,
            method=self.method,
            solver=self.solver,
            seconds=self.seconds,
            seed=self.seed,
            partial_inference=self.partial_inference,
            flow_split=self.flow_split,
            notes=(*self.notes, "flow computed when the file was read; the bound is the compute bound"),
        )

    def save(self, path: str | Path) -> None:
        """Write JSON that `load` reads back to an equal plan."""
        _files.write_result(path, self.to_json())

    def to_json(self) -> str:
        """The plan as JSON text; the same plan always gives the same bytes."""
        data = self.model_dump(mode="json")
        return json.dumps({**data, CHECKSUM: checksum_of(data)}, indent=1) + "\n"

    @cached_property
    def problem(self) -> Problem:
        """The problem this plan solves, with the plan's own profiles."""
        return Problem.of(self.cluster, self.model, self.profiles, self.lengths, self.engine)

    @cached_property
    def flow_edges(self) -> dict[Edge, float]:
        """Flow in tokens/s on each link in use."""
        return {(a, b): f for a, b, f in self.flow}

    @cached_property
    def max_flow(self) -> Flow:
        """The plan's flow with capacities and min cut; the split on links is the plan's own.

        Where the plan uses less than its placement carries, no cut is full: the min cut is empty.
        """
        computed = self.problem.max_flow(self.placement, partial_inference=self.partial_inference)
        is_full = self.flow_tokens_per_s >= computed.tokens_per_s * (1 - 1e-6)
        return Flow(self.flow_tokens_per_s, self.flow_edges, computed.capacities, computed.min_cut if is_full else ())

    @cached_property
    def pipelines(self) -> list[tuple[Pipeline, float]]:
        """The flow as pipelines with tokens/s, largest first."""
        return decompose(self.max_flow, self.placement)

    def diff(self, other: Plan) -> PlanDiff:
        """What changes from this plan to another one: who holds what, the flow, and the GB that nodes have to load.

        Raises InputError for anything but a plan. Both may have clusters of their own; a node is the same machine in
        both if name, GPU and region agree.
        """
        if not isinstance(other, Plan):
            kind = type(other).__name__
            raise InputError("expected a plan, such as Plan.load(file)", where="diff", field="other", value=kind)
        nodes = node_changes(self.problem, self.placement, other.problem, other.placement)
        notes = change_notes(self.problem, other.problem, nodes)
        return PlanDiff(self._figures(), other._figures(), nodes, notes)

    def _figures(self) -> PlanFigures:
        return PlanFigures(
            self._title(),
            self.method,
            self.flow_tokens_per_s,
            self.bound_tokens_per_s,
            stages=max((len(stages) for stages, _ in self.pipelines), default=0),
            served_tokens_per_s=self.served.decode_tokens_per_s if self.served is not None else None,
        )

    def show(self, **options: Any) -> Any:
        """The flow graph for a notebook: interactive where anywidget is installed, else a still picture.

        `options` are those of `helix_kit.widgets.FlowGraph` (or `helix_kit.plots.flow_graph`).
        """
        try:
            from helix_kit.widgets import FlowGraph
        except ImportError:
            from helix_kit.plots import flow_graph

            return flow_graph(self, **options)
        return FlowGraph(self, **options)

    def to_svg(self, path: str | Path | None = None, **options: Any) -> str:
        """The flow graph as SVG text, also written to `path`; options: width, theme, merge, highlight."""
        from helix_kit.plots import flow_graph

        return flow_graph(self, **options).to_svg(path)

    def to_png(self, path: str | Path | None = None, *, scale: float = 2.0, **options: Any) -> bytes:
        """The flow graph as PNG bytes, also written to `path`; options as for `to_svg`, `scale` pixels per pixel."""
        from helix_kit.plots import flow_graph

        return flow_graph(self, **options).to_png(path, scale=scale)

    def pareto(self, path: str | Path | None = None) -> Any:
        """What other plans of the search serve: throughput against decode latency, this one marked (a Figure).

        Also written to `path` when given. Raises InputError for a plan of objective flow.
        """
        from helix_kit.plots.pareto import plot_pareto

        figure = plot_pareto(self)
        if path is not None:
            _files.write_figure(path, figure, dpi=150)
        return figure

    def _title(self) -> str:
        return f"{self.model.name} on {self.cluster.name}"

    def _facts(self) -> dict[str, str]:
        served = {}
        if self.served is not None and self.served.decode_tokens_per_s:
            served = {"serves": f"{number(self.served.decode_tokens_per_s)} tokens/s ({self.served.mode})"}
        return {
            "flow": f"{number(self.flow_tokens_per_s)} tokens/s",
            "bound": f"{number(self.bound_tokens_per_s)} tokens/s",
            "gap": percent(self.gap),
            **served,
            "nodes": f"{len(self.placement)} of {len(self.cluster.nodes)}",
            **self.split_facts,
            "method": self.method,
        }

    @property
    def split_facts(self) -> dict[str, str]:
        """How nodes with several GPUs divide their layers, by the profiles of their kinds; empty where none says it."""
        kinds = dict.fromkeys(n.kind for n in self.cluster.nodes if n.name in self.placement)
        known = [p for p in map(self.profiles.__getitem__, kinds) if p.tensor_parallel * p.groups_in_turn > 1]
        words = [f"{p.kind}: {how_divided(p.tensor_parallel, p.groups_in_turn)}" for p in known]
        return {"GPUs in a node": "; ".join(words)} if words else {}


__all__ = ["SCHEMA_VERSION", "Plan"]
