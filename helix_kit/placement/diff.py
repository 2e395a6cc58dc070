"""What changes from one plan to another: which node holds what before and after, and the weights that it has to load.

A node loads the layers of its new range that its old one lacks. The node with the first layer also holds the embedding,
the one with the last layer the output projection. A node is the same machine in both plans if its name, GPU, number of
GPUs and region are the same; another machine of that name holds nothing yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from helix_kit._summary import Summarised, html_table, number, percent
from helix_kit.cluster import Node
from helix_kit.flow import Placement
from helix_kit.model import Model
from helix_kit.placement.problem import Problem

Span = tuple[int, int]


def layers_to_load(before: Span | None, after: Span | None) -> int:
    """Layers of a node's new range that its old one lacks.

    Parameters
    ----------
    before, after
        Layer ranges [start, end); None where it holds none.

    Returns
    -------
    int
        Number of layers.

    Examples
    --------
    >>> layers_to_load((0, 6), (2, 7)), layers_to_load(None, (2, 7)), layers_to_load((2, 7), None)
    (1, 5, 0)
    """
    if after is None:
        return 0
    kept = 0 if before is None else max(0, min(before[1], after[1]) - max(before[0], after[0]))
    return after[1] - after[0] - kept


def gb_to_load(model: Model, before: Span | None, after: Span | None) -> float:
    """Weights of the layers of a node's new range that its old one lacks, in 10^9 bytes.

    Parameters
    ----------
    model
        Its layers may differ.
    before, after
        Layer ranges [start, end); None where it holds none.

    Returns
    -------
    float
        GB without embedding and output projection.

    Examples
    --------
    >>> round(gb_to_load(Model.preset("deepseek-v3"), None, (0, 4)), 1)
    13.3
    """
    if model.is_uniform or after is None:
        return layers_to_load(before, after) * model.layer_gb
    start, end = after if before is None else (max(before[0], after[0]), min(before[1], after[1]))
    kept_gb = model.layers_gb(start, end) if before is not None and start < end else 0.0
    return model.layers_gb(*after) - kept_gb


def tables_to_load(model: Model, before: Span | None, after: Span | None) -> int:
    """How many of embedding and output projection a node's new range needs that its old one does not hold.

    Parameters
    ----------
    model
        Tied embeddings are one table.
    before, after
        Layer ranges [start, end); None where it holds none.

    Returns
    -------
    int
        0, 1 or 2, each of the size `Model.embedding_gb`.

    Examples
    --------
    >>> model = Model.preset("llama-30b")
    >>> tables_to_load(model, None, (0, 60)), tables_to_load(model, (0, 6), (0, 8))
    (2, 0)
    """
    return len(_tables(after, model) - _tables(before, model))


def same_machines(before: Problem, old: Placement, after: Problem) -> dict[str, Span]:
    """What nodes of another cluster hold already: the ranges of those that are the same machines in both.

    Parameters
    ----------
    before, old
        The problem in which a placement is in use, and that placement.
    after
        The problem of the other cluster.

    Returns
    -------
    dict
        Node name -> layer range [start, end).

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> model = Model.preset("SmolLM2-135M")
    >>> here, there = (Problem.of(Cluster.model_validate({"name": "c", "nodes": [{"name": "a", "gpu": gpu}]}), model)
    ...                for gpu in ("L4", "T4"))
    >>> same_machines(here, {"a": (0, 30)}, here), same_machines(here, {"a": (0, 30)}, there)
    ({'a': (0, 30)}, {})
    """
    gone = {node.name for node in _other_machines(before, after)}
    names = {node.name for node in after.cluster.nodes} - gone
    return {name: span for name, span in old.items() if name in names}


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
        return f"{number(self.move_gb)} GB on {loading} node{'s' * (loading != 1)}{parts if self.tables_gb else ''}"

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
    >>> from helix_kit.cluster import Cluster
    >>> problem = Problem.of(Cluster.preset("laptop"), Model.preset("SmolLM2-135M"))
    >>> node_changes(problem, {"CPU-fast-0": (0, 9)}, problem, {"CPU-fast-0": (3, 9)})[0].load_gb
    0.0
    """
    machines = {n.name: n for n in before.cluster.nodes}
    names = [n.name for n in after.cluster.nodes]
    others = {n.name for n in _other_machines(before, after)}
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
    """What a reader of a comparison should know: another model, other machines under the same names.

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
    >>> from helix_kit.cluster import Cluster
    >>> problem = Problem.of(Cluster.preset("laptop"), Model.preset("SmolLM2-135M"))
    >>> change_notes(problem, problem, ())
    ()
    """
    notes = []
    if before.model != after.model:
        a, b = before.model.name, after.model.name
        which = f"{a} and {b}" if a != b else f"two models called {a}"
        notes.append(f"the models differ ({which}): every node loads all its weights")
    used = {node.node for node in nodes}
    for new in _other_machines(before, after):
        if new.name in used:
            old = before.cluster.node(new.name)
            notes.append(
                f"{new.name} is another machine ({old.kind} in {old.region} before, {new.kind} in {new.region} now): "
                "it holds nothing yet"
            )
    return tuple(notes)


def _other_machines(before: Problem, after: Problem) -> list[Node]:
    """Nodes of the new cluster that have the name of an old node but are another machine."""
    old = {n.name: (n.gpu, n.gpus_per_node, n.region) for n in before.cluster.nodes}
    return [n for n in after.cluster.nodes if n.name in old and old[n.name] != (n.gpu, n.gpus_per_node, n.region)]


def _tables(span: Span | None, model: Model) -> set[str]:
    """The embedding and the output projection, as far as a node with this range holds them."""
    if span is None:
        return set()
    output = "embedding" if model.tied_embeddings else "output projection"  # tied embeddings are one table
    return ({"embedding"} if span[0] == 0 else set()) | ({output} if span[1] == model.num_layers else set())


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
