"""The cluster editor: describe machines, links and a model, solve, and look at the plan.

>>> from helix_kit.widgets import ClusterEditor
>>> ClusterEditor("single24", "llama2-70b")           # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from threading import Event
from typing import Any

import ipywidgets as W

from helix_kit.analysis import explain, shortfall
from helix_kit.cluster import Cluster, Link, LinkException, load_cluster
from helix_kit.cluster import preset_names as cluster_names
from helix_kit.errors import HelixKitError
from helix_kit.model import Model, load_model
from helix_kit.model import preset_names as model_names
from helix_kit.placement.methods import METHODS
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.placement.solvers.solve import SOLVERS
from helix_kit.planning import OBJECTIVES
from helix_kit.planning import plan as solve
from helix_kit.plots.formatting import format_number
from helix_kit.widgets.background import Background
from helix_kit.widgets.cluster_table import TableRow, apply_table, table_of
from helix_kit.widgets.flow_graph import FlowGraph
from helix_kit.widgets.machine_row import MachineRow
from helix_kit.widgets.messages import Message, Note, error_text, progress_text
from helix_kit.widgets.picture_box import PictureBox

MAX_LINKS_NAMED = 3
"""A message about lost links names at most this many."""


class ClusterEditor(PictureBox):
    """Edit a cluster, solve it and look at the plan.

    A solve runs in the background, shows its progress and can be stopped. When a link slider moves, the editor
    computes the flow of the present placement at once, without a new solve.

    Parameters
    ----------
    cluster
        The cluster to begin with: a `Cluster`, or a name or file that `load_cluster` accepts.
    model
        The model to begin with: a `Model`, or a name or folder that `load_model` accepts.
    width
        Width of the flow graph in pixels.

    Examples
    --------
    >>> from helix_kit.widgets import ClusterEditor
    >>> editor = ClusterEditor("single24", "llama2-70b")
    >>> len(editor.rows), editor.cluster().name
    (3, 'single24')
    """

    def __init__(
        self, cluster: Cluster | str = "single24", model: Model | str = "llama2-70b", *, width: float = 1100.0
    ) -> None:
        self._width = width
        self.plan: Plan | None = None
        self._work = Background()
        self._filling = False
        self._changed = False
        self.rows: list[MachineRow] = []
        self._table = W.VBox()
        self.add = W.Button(description="Add machines")
        self.preset = W.Dropdown(options=["", *cluster_names()], description="start from")
        known = {name: Model.preset(name) for name in model_names()}
        start = model if isinstance(model, Model) else load_model(model)
        known.setdefault(start.name, start)
        self.model = W.Dropdown(options=known, value=known[start.name], description="model")
        log = {"min": -3, "max": 3, "step": 0.05, "readout_format": ".3g", "layout": W.Layout(width="380px")}
        wide = {"style": {"description_width": "170px"}}
        self.within_gbps = W.FloatLogSlider(10.0, description="within a region, gbps", **log, **wide)
        self.between_gbps = W.FloatLogSlider(0.1, description="between regions, gbps", **log, **wide)
        self.within_ms = W.BoundedFloatText(1.0, min=0, max=10000, description="latency, ms")
        self.between_ms = W.BoundedFloatText(50.0, min=0, max=10000, description="latency, ms")
        self.coordinator = W.Text("local", description="requests arrive in", continuous_update=False, **wide)
        self.exceptions = Note()
        self.forget_button = W.Button(
            description="Forget exceptions", tooltip="apply the two rules above to these links too"
        )
        self.method = W.Dropdown(options=tuple(METHODS), description="method")
        self.objective = W.Dropdown(options=OBJECTIVES, description="objective")
        self.solver = W.Dropdown(options=SOLVERS, description="solver")
        self.limit = W.BoundedFloatText(30.0, min=0.1, max=86400, description="time limit, s")
        self.depth = W.BoundedIntText(0, min=0, max=10000, description="max. stages", tooltip="0: any number")
        self.solve_button = W.Button(description="Solve", button_style="primary")
        self.stop_button = W.Button(description="Stop", disabled=True)
        self.path = W.Text("my-cluster.yaml", description="file")
        self.save_button, self.load_button = W.Button(description="Save YAML"), W.Button(description="Load YAML")
        self.status, self.why = Message(), Message()
        self._picture = W.VBox()
        self.graph: FlowGraph | None = None
        head = W.HTML("<b>machines · GPU · GPUs in each machine · region</b>")
        machines = W.VBox([self.preset, head, self._table, self.add])
        settings = W.VBox(
            [
                self.model,
                W.HBox([self.within_gbps, self.within_ms]),
                W.HBox([self.between_gbps, self.between_ms]),
                W.HBox([self.exceptions, self.forget_button]),
                self.coordinator,
                W.HBox([self.method, self.solver]),
                W.HBox([self.objective, self.limit]),
                W.HBox([self.depth, W.Label("machines that a request may pass at most (0: any number)")]),
            ]
        )
        super().__init__(
            [
                W.HBox([machines, settings], layout=W.Layout(flex_flow="row wrap")),
                W.HBox([self.solve_button, self.stop_button, self.path, self.save_button, self.load_button]),
                self.status,
                self._picture,
                self.why,
            ]
        )
        self.preset.observe(self._preset_chosen, "value")
        self.add.on_click(lambda _: self._added())
        self.solve_button.on_click(lambda _: self.solve())
        self.stop_button.on_click(lambda _: self.stop())
        self.save_button.on_click(lambda _: self.save())
        self.load_button.on_click(lambda _: self.load())
        self._links = (self.within_gbps, self.within_ms, self.between_gbps, self.between_ms)
        for link in self._links:
            link.observe(self._relinked, "value")
        self.forget_button.on_click(lambda _: self.forget_exceptions())
        self.coordinator.observe(self._edited, "value")
        self.model.observe(self._edited, "value")
        self.fill(cluster if isinstance(cluster, Cluster) else load_cluster(cluster))

    def shown_plan(self) -> Plan | None:
        """The last plan, or None before the first solve."""
        return self.plan

    # ---- description -----------------------------------------------------------------------------------------

    def fill(self, cluster: Cluster) -> None:
        """Show `cluster` in the table. Names and exceptional links are kept, although the table does not show them."""
        self._filling = True
        self._given, self._network, self._changed = cluster, cluster.network, False
        self.rows = [self._row(row) for row in table_of(cluster)]
        self._table.children = tuple(self.rows)
        for link, gbps, ms in self._rules():
            if link is not None:
                gbps.value, ms.value = link.bandwidth_gbps, link.latency_ms
        # A slider clips values beyond its ends. So a rule counts as changed only when one of its fields changes.
        self._shown = tuple(field.value for field in self._links)
        self.coordinator.value = cluster.coordinator.region
        self._filling = False
        self._tell_exceptions(())
        self.status.say(f"{len(cluster.nodes)} machines. Press Solve.")

    def cluster(self) -> Cluster:
        """The cluster that the table describes. An InputError or a pydantic error names what is wrong in it."""
        return self._edited_cluster()[0]

    def _edited_cluster(self) -> tuple[Cluster, tuple[LinkException, ...]]:
        if not self._changed:
            return self._given, ()
        within, between = (
            link if link is not None and (gbps.value, ms.value) == self._shown[at : at + 2] else _link(gbps, ms)
            for at, (link, gbps, ms) in zip((0, 2), self._rules(), strict=True)
        )
        name = Path(self.path.value).stem or "mine"
        network = self._network.model_copy(update={"within_region": within, "between_regions": between})
        rows = [row.row() for row in self.rows]
        region = self.coordinator.value
        return apply_table(self._given, rows, name=name, network=network, coordinator_region=region)

    def _rules(self) -> tuple[tuple[Link | None, W.FloatLogSlider, W.BoundedFloatText], ...]:
        return (
            (self._network.within_region, self.within_gbps, self.within_ms),
            (self._network.between_regions, self.between_gbps, self.between_ms),
        )

    def forget_exceptions(self) -> None:
        """Drop the exceptional links, so that the two rules apply to all links."""
        self._network = self._network.model_copy(update={"links": ()})
        self._tell_exceptions(())
        self._relinked()

    def _tell_exceptions(self, lost: tuple[LinkException, ...]) -> None:
        kept = len(self._network.links) - len(lost)
        lines = []
        if kept:
            links = "1 link has a bandwidth" if kept == 1 else f"{kept} links have a bandwidth"
            own = "its own" if kept == 1 else "their own"
            lines.append(
                f"{links} and latency of {own}. The rules above do not change {'it' if kept == 1 else 'them'}."
            )
        if lost:
            which = ", ".join(" – ".join(link.ends) for link in lost[:MAX_LINKS_NAMED]) + (
                " ..." if len(lost) > MAX_LINKS_NAMED else ""
            )
            lines.append(f"Removed together with their machines: {which}.")
        self.exceptions.say("\n".join(lines))
        self.forget_button.layout.display = None if kept else "none"

    def save(self) -> None:
        """Write the cluster to the file named in the form."""
        try:
            cluster = self.cluster()
            cluster.save(self.path.value)
        except (HelixKitError, ValueError, OSError) as error:
            self.status.say(error_text(error), "bad")
            return
        self.status.say(f"Saved {len(cluster.nodes)} machines to {self.path.value}.", "good")

    def load(self) -> None:
        """Read the cluster from the file named in the form."""
        try:
            self.fill(Cluster.load(self.path.value))
        except HelixKitError as error:
            self.status.say(error_text(error), "bad")

    # ---- solving ---------------------------------------------------------------------------------------------

    def solve(self) -> None:
        """Plan the described cluster in the background. Value, bound and gap are shown meanwhile."""
        model: Model = self.model.value
        try:
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

        def work(stop: Event) -> Plan:
            return solve(
                cluster,
                model,
                method=self.method.value,
                objective=self.objective.value,
                solver=self.solver.value,
                time_limit_s=self.limit.value,
                max_stages=self.depth.value or None,
                progress=lambda *now: self.status.say(progress_text(*now)),
                stop=stop,
            )

        self._work.start(work, self._solved, self._failed)

    def stop(self) -> None:
        """Stop the solve and keep the best plan so far."""
        self._work.stop.set()

    def wait(self, timeout_s: float = 120.0) -> bool:
        """Wait for the solve to end. Return False when it takes longer than `timeout_s`."""
        return self._work.wait(timeout_s)

    def _solved(self, plan: Plan) -> None:
        stopped = " (stopped)" if self._work.stop.is_set() else ""
        self.solve_button.disabled, self.stop_button.disabled = False, True
        self.show(plan)
        figures = progress_text(plan.seconds, plan.flow_tokens_per_s, plan.bound_tokens_per_s)
        served = plan.served.decode_tokens_per_s if plan.served else None
        answers = f" With the KV cache full it decodes {format_number(served)} tokens/s (simulated)." if served else ""
        self.status.say(f"Done{stopped} in {figures}.{answers}", "good")

    def _failed(self, error: Exception) -> None:
        self.solve_button.disabled, self.stop_button.disabled = False, True
        self.status.say(error_text(error), "bad")

    def show(self, plan: Plan) -> None:
        """Draw `plan` and explain it."""
        self.plan = plan
        if self.graph is None:
            self.graph = FlowGraph(plan, width=self._width)
            self._picture.children = (self.graph,)
        else:
            self.graph.plan = plan
        self.why.say(explain(plan))

    # ---- reactions to the reader --------------------------------------------------------------------------------

    def _row(self, values: TableRow) -> MachineRow:
        row = MachineRow(values, own_gpus=self._given.gpus)
        for field in (row.gpu, row.per_node, row.count, row.region):
            field.observe(self._edited, "value")
        row.remove.on_click(lambda _: self._removed(row))
        return row

    def _preset_chosen(self, change: Any) -> None:
        if change["new"]:
            self.fill(Cluster.preset(change["new"]))

    def _added(self) -> None:
        region = self.rows[-1].region.value if self.rows else "local"
        self.rows.append(self._row(TableRow("L4", 1, 1, region)))
        self._table.children = tuple(self.rows)
        self._edited()

    def _removed(self, row: MachineRow) -> None:
        self.rows = [other for other in self.rows if other is not row]
        self._table.children = tuple(self.rows)
        self._edited()

    def _edited(self, change: Any = None) -> None:
        if self._filling:
            return
        if change is None or change["owner"] is not self.model:
            self._changed = True
        with contextlib.suppress(HelixKitError, ValueError):  # An unfinished edit: Solve reports what is wrong.
            self._tell_exceptions(self._edited_cluster()[1])
        self.status.say("Changed: press Solve for a plan.")

    def _relinked(self, _: Any = None) -> None:
        """Compute the flow of the present placement over the changed links: that needs no solve."""
        if self._filling:
            return
        self._changed = True
        if self.plan is None or self._work.running:
            return
        try:
            cluster = self.cluster()
            if {n.name for n in cluster.nodes} != {n.name for n in self.plan.cluster.nodes}:
                return
            problem = Problem.of(cluster, self.plan.model, self.plan.profiles)
            before = self.plan.flow_tokens_per_s
            self.show(self.plan.rearranged(dict(self.plan.placement), problem=problem))
        except (HelixKitError, ValueError) as error:
            self.status.say(error_text(error), "bad")
            return
        now = self.plan.flow_tokens_per_s
        change = f" ({now / before - 1:+.1%})" if before > 0 else ""
        self.status.say(
            f"The same placement over these links: {now:,.0f} tokens/s{change}. Solve looks for a better one."
        )


def _link(gbps: W.FloatLogSlider, ms: W.BoundedFloatText) -> Link:
    return Link(bandwidth_gbps=gbps.value, latency_ms=ms.value)
