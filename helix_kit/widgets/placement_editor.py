"""The placement editor: move layers by hand and see at once what the plan carries and why.

>>> from helix_kit.widgets import PlacementEditor
>>> editor = PlacementEditor(plan)                    # doctest: +SKIP
>>> editor.set_range("L4-3", 12, 18)                  # doctest: +SKIP
>>> editor.plan.flow_tokens_per_s                     # doctest: +SKIP
"""

from __future__ import annotations

from typing import Any

import ipywidgets as W

from helix_kit.analysis import bottleneck, explain
from helix_kit.analysis.repair import fix_the_rest
from helix_kit.errors import InputError
from helix_kit.placement.plan import Plan
from helix_kit.plots.formatting import format_number
from helix_kit.widgets.background import Background
from helix_kit.widgets.figures_panel import FiguresPanel
from helix_kit.widgets.flow_graph import FlowGraph
from helix_kit.widgets.messages import Message, error_text
from helix_kit.widgets.picture_box import PictureBox

Ranges = dict[str, tuple[int, int]]


class PlacementEditor(PictureBox):
    """Change the layer ranges of a plan with steppers or by dragging bars.

    The attribute `plan` is the edited plan.

    Parameters
    ----------
    plan
        The plan to begin with. Every edit is compared with it.
    simulate
        Whether to simulate the plan under full load after each edit (in the background, about a second).
    width
        Width of the flow graph in pixels.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, Plan, Problem
    >>> from helix_kit.widgets import PlacementEditor
    >>> cluster = Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "L4", "count": 2}]})
    >>> problem = Problem.of(cluster, Model.preset("SmolLM2-135M"))
    >>> plan = Plan.from_placement(problem, {"L4-0": (0, 15), "L4-1": (15, 30)}, method="hand")
    >>> editor = PlacementEditor(plan, simulate=False)
    >>> editor.set_range("L4-1", 0, 30)
    >>> editor.plan.placement["L4-1"]
    (0, 30)
    """

    def __init__(self, plan: Plan, *, simulate: bool = True, width: float = 1100.0) -> None:
        self.plan = self.start = plan
        self.edited: set[str] = set()
        self._undo: list[tuple[Ranges, set[str]]] = []
        self._repair = Background()
        self._setting = False
        self.graph = FlowGraph(plan, editable=True, merge=False, width=width)
        names = [n.name for n in plan.cluster.nodes]
        layers = plan.model.num_layers
        self.node = W.Dropdown(options=names, value=names[0], description="machine")
        self.first = W.BoundedIntText(min=0, max=layers - 1, description="first layer", layout=W.Layout(width="170px"))
        self.last = W.BoundedIntText(min=0, max=layers - 1, description="last layer", layout=W.Layout(width="170px"))
        self.used = W.Checkbox(description="holds layers", indent=False, layout=W.Layout(width="120px"))
        self.undo_button = W.Button(description="Undo", disabled=True, layout=W.Layout(width="80px"))
        self.fix_button = W.Button(
            description="Fix the rest", tooltip="keep the machines you changed, move the others", disabled=True
        )
        self.reset_button = W.Button(description="Start again", disabled=True)
        self.verdict, self.why = Message(), Message()
        self.simulated = FiguresPanel(("start", "edited"), simulate=simulate)
        super().__init__(
            [
                W.HBox([self.node, self.first, self.last, self.used]),
                W.HBox([self.undo_button, self.fix_button, self.reset_button]),
                self.verdict,
                self.graph,
                self.simulated,
                self.why,
            ]
        )
        self.node.observe(self._show_node, "value")
        for stepper in (self.first, self.last, self.used):
            stepper.observe(self._stepped, "value")
        self.graph.observe(self._dragged, "edit")
        self.graph.on_select(self._picked)
        self.undo_button.on_click(lambda _: self.undo())
        self.fix_button.on_click(lambda _: self.fix_rest())
        self.reset_button.on_click(lambda _: self.restart())
        self._show_node()
        self._tell()

    def shown_plan(self) -> Plan:
        """The edited plan."""
        return self.plan

    # ---- edits -----------------------------------------------------------------------------------------------

    def set_range(self, node: str, start: int, end: int) -> None:
        """Let `node` hold layers [start, end). An unknown node or a range outside the model is an InputError."""
        self.plan.cluster.node(node)
        if not 0 <= start < end <= self.plan.model.num_layers:
            expected = f"expected 0 <= start < end <= {self.plan.model.num_layers}"
            raise InputError(expected, where="placement", field=node, value=[start, end])
        if self.plan.placement.get(node) != (start, end):
            self._change({**self.plan.placement, node: (start, end)}, {node})

    def clear(self, node: str) -> None:
        """Let `node` hold no layers."""
        self.plan.cluster.node(node)
        if node in self.plan.placement:
            self._change({n: span for n, span in self.plan.placement.items() if n != node}, {node})

    def undo(self) -> None:
        """Take back the last edit, also one made by `fix_rest`."""
        if self._undo:
            placement, self.edited = self._undo.pop()
            self._show(self._evaluate(placement))

    def restart(self) -> None:
        """Return to the plan that the editor began with. `undo` takes this back too."""
        if self.plan.placement != self.start.placement:
            self._remember()
            self.edited = set()
            self._show(self.start)

    def fix_rest(self) -> None:
        """Search for a few seconds for a larger flow: machines that were not edited may move."""
        before, pinned = self.plan, set(self.edited)
        self.verdict.say("Looking for better places for the other machines ...")
        self.fix_button.disabled = True

        def on_done(repaired: Plan) -> None:
            if self.plan is not before:
                return  # The reader has edited the plan in the meantime.
            if repaired.flow_tokens_per_s > before.flow_tokens_per_s:
                self._remember()
                self._show(repaired)
            else:
                self._show(before)
                self.verdict.say(f"{self.verdict.text}\nThe search found no better places for the other machines.")

        def on_failed(error: Exception) -> None:
            self._tell()
            self.verdict.say(f"{self.verdict.text}\n{error_text(error)}", "bad")

        self._repair.start(lambda stop: fix_the_rest(before, pinned, stop=stop), on_done, on_failed)

    def wait(self, timeout_s: float = 60.0) -> bool:
        """Wait for background work to end. Return False when it takes longer than `timeout_s`."""
        return self._repair.wait(timeout_s) and self.simulated.wait(timeout_s)

    def _change(self, placement: Ranges, nodes: set[str]) -> None:
        self._remember()
        self.edited |= nodes
        self._show(self._evaluate(placement))

    def _remember(self) -> None:
        self._undo.append((dict(self.plan.placement), set(self.edited)))

    def _evaluate(self, placement: Ranges) -> Plan:
        if placement == self.start.placement:
            return self.start
        return self.start.rearranged(
            placement,
            method=f"{self.start.method} + edits",
            bound_tokens_per_s=max(self.start.bound_tokens_per_s, self.start.flow_tokens_per_s),
        )

    # ---- display ---------------------------------------------------------------------------------------

    def _show(self, plan: Plan) -> None:
        self.plan = plan
        self.graph.plan = plan
        self.graph.selected = self.node.value if self.node.value in plan.placement else ""
        self._show_node()
        self._tell()

    def _show_node(self, _: Any = None) -> None:
        span = self.plan.placement.get(self.node.value)
        self._setting = True
        self.used.value = span is not None
        self.first.disabled = self.last.disabled = span is None
        if span is not None:
            self.first.value, self.last.value = span[0], span[1] - 1
        self._setting = False

    def _tell(self) -> None:
        faults = problems(self.plan)
        before, now = self.start.flow_tokens_per_s, self.plan.flow_tokens_per_s
        change = f", {now / before - 1:+.1%} against the start" if before > 0 and self.plan is not self.start else ""
        verdict = f"{format_number(now)} tokens/s{change}"
        self.verdict.say("\n".join([verdict, *faults]), "bad" if faults else "good" if now >= before else "info")
        self.why.say(explain(self.plan))
        self.undo_button.disabled = not self._undo
        self.reset_button.disabled = self.plan.placement == self.start.placement
        self.fix_button.disabled = not self.edited
        self.simulated.show(self.plan, self.start)

    # ---- reactions to the reader --------------------------------------------------------------------------------

    def _picked(self, name: str) -> None:
        if name:
            self.node.value = name

    def _stepped(self, change: Any) -> None:
        if self._setting:
            return
        node = self.node.value
        if not self.used.value:
            self.clear(node)
            return
        first, last = self.first.value, self.last.value
        if change["owner"] is self.first:
            last = max(first, last)
        else:
            first = min(first, last)
        self.set_range(node, first, last + 1)

    def _dragged(self, change: Any) -> None:
        edit = change["new"]
        if edit:
            self.node.value = edit["node"]
            self.set_range(edit["node"], int(edit["start"]), int(edit["end"]))


def problems(plan: Plan) -> list[str]:
    """One sentence for each fault of a placement: layers that no machine holds, and machines without enough memory."""
    lines = []
    for layers in bottleneck(plan).missing:
        lines.append(f"No machine holds {layers.words}.")
    for name, (start, end) in plan.placement.items():
        if not plan.problem.fits(name, start, end):
            max_layers = next(e for e in range(end - 1, start - 1, -1) if plan.problem.fits(name, start, e)) - start
            excess_gb = plan.model.layers_gb(start + max_layers, end)
            lines.append(
                f"{name} holds {end - start} layers but has memory for {max_layers} beside its KV cache: "
                f"{excess_gb:.1f} GB too many."
            )
    if not lines and plan.flow_tokens_per_s <= 0:
        lines.append("No pipeline leads from the first layer to the last.")
    return lines
