"""What changes from one plan to another: which node holds what before and after, and the weights that it has to load.

`helix_kit.placement.weights_to_load` says which weights these are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from helix_kit._summary import Summarised, html_table, number, percent
from helix_kit._wording import count_text, join_names
from helix_kit.flow import Placement
from helix_kit.placement.problem import Problem
from helix_kit.placement.weights_to_load import (
    Span,
    gb_to_load,
    layers_to_load,
    other_machines,
    same_machines,
    tables_to_load,
)


@dataclass(frozen=True)
class NodeChange:
    """One node in both plans.

    Examples
    --------
    >>> NodeChange("T4-0", before=(0, 6), after=(2, 7), layers_gb=1.53, tables_gb=0.0).change
    'moves'
    """

    node: str
    """Its name."""
    before: Span | None
    """Layer range [start, end) in the first plan; None if it holds no layers."""
    after: Span | None
    """Layer range in the second plan."""
    layers_gb: float
    """Layers to load, in 10^9 bytes."""
    tables_gb: float
    """Embedding and output projection to load, in 10^9 bytes."""

    @property
    def load_gb(self) -> float:
        """All weights to load, in 10^9 bytes."""
        return self.layers_gb + self.tables_gb

    @property
    def change(self) -> str:
        """``same``, ``moves`` (to another range), ``joins``, ``leaves``, or ``replaced`` (by another machine)."""
        if self.before is None:
            return "joins"
        if self.after is None:
            return "leaves"
        if self.before != self.after:
            return "moves"
        return "replaced" if self.load_gb else "same"


@dataclass(frozen=True)
class PlanFigures:
    """What a plan is worth, as far as a comparison shows it.

    Examples
    --------
    >>> PlanFigures("llama2-70b on single24", "pattern", 2045.6, 2045.6, stages=24).served_tokens_per_s is None
    True
    """

    title: str
    """Model and cluster."""
    method: str
    """What made the plan."""
    flow_tokens_per_s: float
    """Its maximum flow."""
    bound_tokens_per_s: float
    """The least proven bound."""
    stages: int
    """The largest number of nodes that a request passes."""
    served_tokens_per_s: float | None = None
    """Decode tokens/s in the simulator, for plans of objective served."""


@dataclass(frozen=True, repr=False)
class PlanDiff(Summarised):
    """The way from one plan to another. `print` shows all of it, a notebook a table of the nodes.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, Plan, Problem
    >>> problem = Problem.of(Cluster.preset("laptop"), Model.preset("SmolLM2-135M"))
    >>> old = Plan.from_placement(problem, {"CPU-fast-0": (0, 18), "CPU-medium-0": (18, 30)}, method="hand")
    >>> new = Plan.from_placement(problem, {"CPU-fast-0": (0, 20), "CPU-medium-0": (20, 30)}, method="hand")
    >>> change = old.diff(new)
    >>> [(node.node, node.change) for node in change.nodes], change.move_gb == 2 * old.model.layer_gb
    ([('CPU-fast-0', 'moves'), ('CPU-medium-0', 'moves')], True)
    """

    before: PlanFigures
    """The first plan."""
    after: PlanFigures
    """The second plan."""
    nodes: tuple[NodeChange, ...]
    """Every node that holds layers in one of them, in the order of the clusters."""
    notes: tuple[str, ...] = ()
    """What a reader should know, in sentences."""

    @property
    def layers_gb(self) -> float:
        """Layers that nodes have to load, in 10^9 bytes."""
        return sum(node.layers_gb for node in self.nodes)

    @property
    def tables_gb(self) -> float:
        """Embeddings and output projections that nodes have to load, in 10^9 bytes."""
        return sum(node.tables_gb for node in self.nodes)

    @property
    def move_gb(self) -> float:
        """All weights that nodes have to load, in 10^9 bytes."""
        return self.layers_gb + self.tables_gb

    @property
    def changed(self) -> tuple[NodeChange, ...]:
        """The nodes for which anything changes."""
        return tuple(node for node in self.nodes if node.change != "same")

    def figures(self) -> dict[str, tuple[str, str, str]]:
        """Name -> (before, after, change) of what the plans are worth, as text."""
        a, b = self.before, self.after
        rows = {
            "Flow, tokens/s": (a.flow_tokens_per_s, b.flow_tokens_per_s),
            "Proven bound, tokens/s": (a.bound_tokens_per_s, b.bound_tokens_per_s),
        }
        shown = {name: (number(old), number(new), _relative(old, new)) for name, (old, new) in rows.items()}
        if a.served_tokens_per_s is not None or b.served_tokens_per_s is not None:
            old, new = a.served_tokens_per_s, b.served_tokens_per_s
            relative = "" if old is None or new is None else _relative(old, new)
            shown["Served, decode tokens/s"] = (number(old), number(new), relative)
        shown["Most stages"] = (str(a.stages), str(b.stages), "")
        shown["Method"] = (a.method, b.method, "")
        if a.title != b.title:
            shown = {"Plan": (a.title, b.title, ""), **shown}
        return shown

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """(node, layers before, layers after, GB to load, change) of each node, as text."""
        return [
            (n.node, _range(n.before), _range(n.after), number(n.load_gb) if n.load_gb else "", n.change)
            for n in self.nodes
        ]

    def load_text(self) -> str:
        """The weights to load, in a sentence."""
        loading = sum(node.load_gb > 0 for node in self.nodes)
        if not loading:
            return "nothing: every node holds its weights"
        parts = f" ({number(self.layers_gb)} of layers, {number(self.tables_gb)} of embedding and output projection)"
        return f"{number(self.move_gb)} GB on {count_text(loading, 'node')}{parts if self.tables_gb else ''}"

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data, for JSON."""

        def plain(plan: PlanFigures) -> dict[str, Any]:
            return {
                "plan": plan.title, "method": plan.method, "flow_tokens_per_s": plan.flow_tokens_per_s,
                "bound_tokens_per_s": plan.bound_tokens_per_s, "stages": plan.stages,
                "served_tokens_per_s": plan.served_tokens_per_s,
            }  # fmt: skip

        nodes = [
            {
                "node": n.node, "change": n.change, "before": n.before and list(n.before),
                "after": n.after and list(n.after), "load_gb": n.load_gb, "layers_gb": n.layers_gb,
                "tables_gb": n.tables_gb,
            }
            for n in self.nodes
        ]  # fmt: skip
        totals = {"move_gb": self.move_gb, "layers_gb": self.layers_gb, "tables_gb": self.tables_gb}
        return {
            "before": plain(self.before), "after": plain(self.after), **totals, "nodes": nodes,
            "notes": list(self.notes),
        }  # fmt: skip

    def _title(self) -> str:
        return self.before.title if self.before.title == self.after.title else ""

    def _facts(self) -> dict[str, str]:
        old, new = self.before.flow_tokens_per_s, self.after.flow_tokens_per_s
        return {
            "flow": f"{number(old)} -> {number(new)} tokens/s",
            "nodes that change": f"{len(self.changed)} of {len(self.nodes)}",
            "to load": f"{number(self.move_gb)} GB",
        }

    def __str__(self) -> str:
        head = ("node", "before", "after", "GB to load", "change")
        lines = [*_aligned([head, *self.rows()]), ""]
        lines += _aligned([("", "before", "after", "change"), *((name, *row) for name, row in self.figures().items())])
        lines += ["", f"To load: {self.load_text()}", *(f"Note: {note}" for note in self.notes)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = ("node", "before", "after", "GB to load", "change")
        figures = [(name, *row) for name, row in self.figures().items()]
        return "\n".join(
            [
                html_table(self.rows(), head=head, caption=f"{repr(self)[1:-1]}"),
                html_table(figures, head=("", "before", "after", "change")),
            ]
        )


def node_changes(before: Problem, old: Placement, after: Problem, new: Placement) -> tuple[NodeChange, ...]:
    """Every node that holds layers in one of two placements, with the weights that it has to load.

    Parameters
    ----------
    before, old
        The problem in which the old placement is in use, and that placement.
    after, new
        The problem and the placement that are wanted.

    Returns
    -------
    tuple of NodeChange
        Nodes of the new cluster in its order, then those that only the old one has.

    Examples
    --------
    >>> from helix_kit import Cluster, Model
    >>> problem = Problem.of(Cluster.preset("laptop"), Model.preset("SmolLM2-135M"))
    >>> node_changes(problem, {"CPU-fast-0": (0, 9)}, problem, {"CPU-fast-0": (3, 9)})[0].load_gb
    0.0
    """
    machines = {n.name: n for n in before.cluster.nodes}
    names = [n.name for n in after.cluster.nodes]
    others = {n.name for n in other_machines(before, after)}
    model, changes = after.model, []
    for name in [*names, *(n for n in machines if n not in set(names))]:
        was, now = old.get(name), new.get(name)
        if was is None and now is None:
            continue
        held = was if name not in others and before.model == model else None
        changes.append(
            NodeChange(
                name,
                was,
                now,
                layers_gb=gb_to_load(model, held, now),
                tables_gb=tables_to_load(model, held, now) * model.embedding_gb,
            )
        )
    return tuple(changes)


def change_notes(before: Problem, after: Problem, nodes: tuple[NodeChange, ...]) -> tuple[str, ...]:
    """What a reader of a comparison should know: another model, other bases of the flows, other machines of one name.

    Parameters
    ----------
    before, after
        The problems of the two plans.
    nodes
        What `node_changes` found.

    Returns
    -------
    tuple of str
        Sentences.

    Examples
    --------
    >>> from helix_kit import Cluster, Model
    >>> problem = Problem.of(Cluster.preset("laptop"), Model.preset("SmolLM2-135M"))
    >>> change_notes(problem, problem, ())
    ()
    """
    notes = []
    if before.model != after.model:
        a, b = before.model.name, after.model.name
        which = f"{a} and {b}" if a != b else f"two models called {a}"
        notes.append(f"the models differ ({which}): every node loads all its weights")
    elif bases := _other_bases(before, after):
        notes.append(f"the flows cannot be compared: the plans count with {join_names(bases)}")
    used = {node.node for node in nodes}
    for new in other_machines(before, after):
        if new.name in used:
            old = before.cluster.node(new.name)
            notes.append(
                f"{new.name} is another machine ({old.kind} in {old.region} before, {new.kind} in {new.region} now): "
                "it holds nothing yet"
            )
    return tuple(notes)


def _other_bases(before: Problem, after: Problem) -> list[str]:
    """What two plans of one model count with that differs: the lengths of requests, and speeds of the same machines."""
    a, b, found = before.lengths, after.lengths, []
    if (a.input_tokens, a.output_tokens) != (b.input_tokens, b.output_tokens):
        found.append(f"requests of other lengths ({a} before, {b} now)")
    if any(after.profiles.get(kind, profile) != profile for kind, profile in before.profiles.items()):
        found.append("other speeds of the same machines (their profiles or engines differ)")
    return found


def _range(span: Span | None) -> str:
    return "-" if span is None else f"[{span[0]}, {span[1]})"


def _relative(old: float, new: float) -> str:
    if old == new:
        return "same"
    return f"{'+' if new > old else '-'}{percent(abs(new - old) / old)}" if old > 0 else ""


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


__all__ = [
    "NodeChange",
    "PlanDiff",
    "PlanFigures",
    "change_notes",
    "gb_to_load",
    "layers_to_load",
    "node_changes",
    "same_machines",
    "tables_to_load",
]
