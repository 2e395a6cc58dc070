"""The cluster editor: describe machines, links and a model, solve, and look at the plan.

>>> from helix_kit.widgets import ClusterEditor
>>> ClusterEditor("single24", "llama2-70b")           # doctest: +SKIP
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from threading import Event
from typing import Any

import ipywidgets as W

from helix_kit.analysis import explain, shortfall
from helix_kit.cluster import Cluster, load_cluster
from helix_kit.errors import HelixKitError
from helix_kit.metrics import SLO
from helix_kit.model import Model, load_model
from helix_kit.placement.methods import method_names
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.placement.solvers.solve import SOLVERS
from helix_kit.planning import OBJECTIVES
from helix_kit.planning import plan as solve
from helix_kit.plots.formatting import format_number
from helix_kit.widgets.background import Background
from helix_kit.widgets.cluster_form import WIDE, ClusterForm
from helix_kit.widgets.figures_panel import FiguresPanel
from helix_kit.widgets.flow_graph import FlowGraph
from helix_kit.widgets.messages import Message, error_text, progress_text
from helix_kit.widgets.solve_picture import SolvePicture
from helix_kit.widgets.visits import keep_plan, kept_plan

DRAFT_S = 1.0
"""Seconds between two drawings of the best placement so far."""
DRAFT_SHARE = 0.1
"""Share of a solve's time that drawings take at most."""


class ClusterEditor(ClusterForm):
    """Edit a cluster, solve it and look at the plan.

    A solve runs in the background, shows its progress and can be stopped. When a link slider moves, the editor
    computes the flow of the solved placement at once, without a new solve, and compares it with the solved plan.

    Parameters
    ----------
    cluster
        The cluster to begin with: a `Cluster`, or a name or file that `load_cluster` accepts.
    model
        The model to begin with: a `Model`, or a name or folder that `load_model` accepts.
    width
        Width of the flow graph in pixels.
    simulate
        Whether to simulate each plan under full load (in the background, about a second).
    keep
        Name under which a dashboard keeps the last solved plan until the next visit. Outside a dashboard nothing is
        kept.

    Examples
    --------
    >>> from helix_kit.widgets import ClusterEditor
    >>> editor = ClusterEditor("single24", "llama2-70b")
    >>> len(editor.rows), editor.cluster().name
    (3, 'single24')
    """

    def __init__(
        self,
        cluster: Cluster | str = "single24",
        model: Model | str = "llama2-70b",
        *,
        width: float = 1100.0,
        simulate: bool = True,
        keep: str | None = None,
    ) -> None:
        self._width, self._keep = width, keep
        self.plan: Plan | None = None
        """The plan on show."""
        self.solved: Plan | None = None
        """The plan of the last solve, which changes of links are compared with."""
        self._work = Background()
        self._drawn_s = self._drawing_s = 0.0
        self.method = W.Dropdown(options=method_names(), description="method", style=WIDE)
        self.objective = W.Dropdown(options=OBJECTIVES, description="objective", style=WIDE)
        self.slo = W.Text(placeholder="ttft:2 tpot:0.2 at:0.9", description="SLO", style=WIDE)
        """Limits of a request, for objective ``goodput``."""
        self.solver = W.Dropdown(options=SOLVERS, description="solver")
        self.limit = W.BoundedFloatText(30.0, min=0.1, max=86400, description="time limit, s")
        self.depth = W.BoundedIntText(
            0, min=0, max=10000, description="max. stages", tooltip="0: any number", style=WIDE
        )
        self.solve_button = W.Button(description="Solve", button_style="primary")
        self.stop_button = W.Button(description="Stop", disabled=True)
        self.curve, self.figures = SolvePicture(), FiguresPanel(("solved", "shown"), simulate=simulate)
        self.why = Message()
        self._picture = W.VBox()
        self.graph: FlowGraph | None = None
        kept = kept_plan(keep)
        super().__init__(
            cluster if isinstance(cluster, Cluster) else load_cluster(cluster),
            model if isinstance(model, Model) else load_model(model),
            kept.cluster if kept else None,
        )
        settings = [
            W.HBox([self.method, self.solver]),
            W.HBox([self.objective, self.limit]),
            W.HBox([self.slo, W.Label("limits in seconds, for objective goodput alone")]),
            W.HBox([self.depth, W.Label("machines that a request may pass at most (0: any number)")]),
        ]
        self.children = (
            *self._description(settings),
            W.HBox([self.solve_button, self.stop_button, self.reset_button]),
            W.HBox([self.path, self.save_button, self.load_button]),
            self.status,
            self.curve,
            self._picture,
            self.figures,
            self.why,
        )
        self.solve_button.on_click(lambda _: self.solve())
        self.stop_button.on_click(lambda _: self.stop())
        self.fill(self._start)
        if kept is not None:
            self._show_kept(kept)

    def shown_plan(self) -> Plan | None:
        """The last plan, or None before the first solve."""
        return self.plan

    # ---- solving ---------------------------------------------------------------------------------------------

    def solve(self) -> None:
        """Plan the described cluster in the background. Value, bound, gap and best placement are shown meanwhile."""
        model: Model = self.model.value
        try:
            slo = SLO.parse(self.slo.value) if self.objective.value == "goodput" else None
            cluster = self.cluster()
            lack = shortfall(cluster, model)
        except (HelixKitError, ValueError) as error:
            self.status.say(error_text(error), "bad")
            return
        if lack.remedies:
            self.status.say(lack.words, "bad")
            return
        self.solve_button.disabled, self.stop_button.disabled = True, False
        self.status.say("Solving ...")
        self.curve.begin()
        self._drawn_s = self._drawing_s = 0.0
        started = time.perf_counter()

        def on_progress(seconds: float, value: float, bound: float, message: str) -> None:
            self.curve.add(seconds, value, bound)
            self.status.say(progress_text(seconds, value, bound, message))

        def on_better(placement: Mapping[str, tuple[int, int]]) -> None:
            self._draw_draft(cluster, model, placement, time.perf_counter() - started)

        def work(stop: Event) -> Plan:
            return solve(
                cluster,
                model,
                method=self.method.value,
                objective=self.objective.value,
                slo=slo,
                solver=self.solver.value,
                time_limit_s=self.limit.value,
                max_stages=self.depth.value or None,
                progress=on_progress,
                incumbent=on_better,
                stop=stop,
            )

        self._work.start(work, self._solved, self._failed)

    def stop(self) -> None:
        """Stop the solve and keep the best plan so far."""
        self._work.stop.set()

    def wait(self, timeout_s: float = 120.0) -> bool:
        """Wait for the solve and its simulation to end. Return False when one takes longer than `timeout_s`."""
        return self._work.wait(timeout_s) and self.figures.wait(timeout_s)

    def _draw_draft(
        self, cluster: Cluster, model: Model, placement: Mapping[str, tuple[int, int]], now_s: float
    ) -> None:
        """Draw the best placement so far, unless the last drawing was a moment ago or drawing takes too long."""
        recently = self._drawn_s > 0 and now_s - self._drawn_s < DRAFT_S
        if recently or self._drawing_s > DRAFT_SHARE * max(now_s, DRAFT_S):
            return
        started = time.perf_counter()
        problem = Problem.of(cluster, model)
        self._draw(Plan.from_placement(problem, dict(placement), method="best so far", flow_split="any"))
        self.why.say("The picture shows the best placement so far.")
        self._drawn_s, self._drawing_s = now_s, self._drawing_s + time.perf_counter() - started

    def _solved(self, plan: Plan) -> None:
        stopped = " (stopped)" if self._work.stop.is_set() else ""
        self._ended(plan.seconds)
        self.show(plan)
        figures = progress_text(plan.seconds, plan.flow_tokens_per_s, plan.bound_tokens_per_s)
        self.status.say(f"Done{stopped} in {figures}.{_served_text(plan)}", "good")
        keep_plan(self._keep, plan)

    def _failed(self, error: Exception) -> None:
        self._ended(None)
        if self.plan is not None:
            self._draw(self.plan)
            self.why.say(explain(self.plan))
        self.status.say(error_text(error), "bad")

    def _ended(self, seconds: float | None) -> None:
        self.curve.end(seconds)
        self.solve_button.disabled, self.stop_button.disabled = False, True

    # ---- display ---------------------------------------------------------------------------------------------

    def show(self, plan: Plan) -> None:
        """Draw `plan` and explain it. Changes of links are compared with it from now on."""
        self.solved = plan
        self._show(plan)

    def _show(self, plan: Plan) -> None:
        self.plan = plan
        self._draw(plan)
        self.figures.show(plan, self.solved)
        self.why.say(explain(plan))

    def _draw(self, plan: Plan) -> None:
        if self.graph is None:
            self.graph = FlowGraph(plan, width=self._width)
            self._picture.children = (self.graph,)
        else:
            self.graph.plan = plan

    def _show_kept(self, plan: Plan) -> None:
        """Show the plan of the last visit, which a dashboard has kept."""
        self.fill(plan.cluster)
        if plan.model.name not in dict(self.model.options):
            self.model.options = {**dict(self.model.options), plan.model.name: plan.model}
        self._filling = True
        self.model.value = dict(self.model.options)[plan.model.name]
        self._filling = False
        self.show(plan)
        self.status.say(
            f"This is the plan of your last visit. Start again returns to {self._start.name}; Solve plans anew."
        )

    # ---- reactions to the reader --------------------------------------------------------------------------------

    def _relinked(self, _: Any = None) -> None:
        """Compute the flow of the solved placement over the changed links: that needs no solve."""
        super()._relinked()
        solved = self.solved
        if self._filling or solved is None or self._work.running:
            return
        try:
            cluster = self.cluster()
            if {n.name for n in cluster.nodes} != {n.name for n in solved.cluster.nodes}:
                return
            same = cluster.model_copy(update={"name": solved.cluster.name}) == solved.cluster
            plan = solved if same else _over(cluster, solved)
        except (HelixKitError, ValueError) as error:
            self.status.say(error_text(error), "bad")
            return
        self._show(plan)
        if same:
            self.status.say(
                f"These are the links of the solved plan: {format_number(plan.flow_tokens_per_s)} tokens/s."
            )
            return
        before, now = solved.flow_tokens_per_s, plan.flow_tokens_per_s
        change = f" ({now / before - 1:+.1%} against the solved plan)" if before > 0 else ""
        bound = "" if _is_slower(cluster, solved.cluster) else " The bound is not proven for faster links."
        self.status.say(
            f"The same placement over these links: {format_number(now)} tokens/s{change}. "
            f"Solve looks for a better one.{bound}"
        )


def _served_text(plan: Plan) -> str:
    """What a plan that was made for it serves, as a sentence; empty for a plan for the flow."""
    if plan.served is None:
        return ""
    how = "simulated" if plan.served.is_simulated else "predicted: the time was too short for a simulation"
    if goodput := plan.served.goodput_text:
        return f" {goodput[0].upper()}{goodput[1:]} ({how})."
    served = format_number(plan.served.decode_tokens_per_s)
    return f" With the KV cache full it decodes {served} tokens/s ({how})."


def _over(cluster: Cluster, solved: Plan) -> Plan:
    """The solved placement on a cluster with other links.

    Slower links carry no placement's flow further, so the proven bound still holds for them. For faster links the
    published compute bound is left.
    """
    bound = solved.bound_tokens_per_s if _is_slower(cluster, solved.cluster) else None
    problem = Problem.of(cluster, solved.model, solved.profiles, solved.lengths)
    return solved.rearranged(dict(solved.placement), problem=problem, bound_tokens_per_s=bound)


def _is_slower(cluster: Cluster, other: Cluster) -> bool:
    """Whether `cluster` is `other` with rules for links of the same or of less bandwidth."""
    rules = ("within_region", "between_regions")
    network = cluster.network.model_copy(update={rule: getattr(other.network, rule) for rule in rules})
    if cluster.model_copy(update={"name": other.name, "network": network}) != other:
        return False
    pairs = [(getattr(cluster.network, rule), getattr(other.network, rule)) for rule in rules]
    return all(
        now == before or (now and before and now.bandwidth_gbps <= before.bandwidth_gbps) for now, before in pairs
    )
