"""The part of the cluster editor that describes: machines, links and model, with their YAML file."""

from __future__ import annotations

import contextlib
from typing import Any

import ipywidgets as W

from helix_kit._wording import agreeing, count_text
from helix_kit.cluster import Cluster, Link, LinkException
from helix_kit.cluster import preset_names as cluster_names
from helix_kit.errors import HelixKitError
from helix_kit.model import Model
from helix_kit.model import preset_names as model_names
from helix_kit.widgets.cluster_table import TableRow, apply_table, table_of
from helix_kit.widgets.link_field import LinkField
from helix_kit.widgets.machine_row import MachineRow
from helix_kit.widgets.messages import Message, Note, error_text
from helix_kit.widgets.picture_box import PictureBox

MAX_LINKS_NAMED = 3
"""A message about lost links names at most this many."""
WIDE = {"description_width": "150px"}


class ClusterForm(PictureBox):
    """A table of machines, rules for links, and a model.

    Parameters
    ----------
    cluster
        The cluster to begin with.
    model
        The model to begin with.
    shown
        The cluster that is filled in at first. None: `cluster`.
    """

    def __init__(self, cluster: Cluster, model: Model, shown: Cluster | None = None) -> None:
        self._filling = False
        self._changed = False
        self._start = cluster
        self._own_path = ""
        self.rows: list[MachineRow] = []
        self._table = W.VBox()
        self.add = W.Button(description="Add machines")
        self.preset = W.Dropdown(options=["", *cluster_names()], description="start from")
        known = {name: Model.preset(name) for name in model_names()}
        known.setdefault(model.name, model)
        self.model = W.Dropdown(options=known, value=known[model.name], description="model", style=WIDE)
        self.name = W.Text(cluster.name, description="cluster", continuous_update=False, style=WIDE)
        # The fields begin with the values to be shown: a browser that draws them late would send earlier ones back.
        network = (shown or cluster).network
        self.within = LinkField("within a region", *_values(network.within_region, (10.0, 1.0)))
        self.between = LinkField("between regions", *_values(network.between_regions, (0.1, 50.0)))
        # Under these names the numbers are set and read: `editor.between_gbps.value = 0.2`.
        self.within_gbps, self.within_ms = self.within.gbps, self.within.latency_ms
        self.between_gbps, self.between_ms = self.between.gbps, self.between.latency_ms
        self.coordinator = W.Text("local", description="requests arrive in", continuous_update=False, style=WIDE)
        self.exceptions = Note()
        self.forget_button = W.Button(
            description="Forget exceptions", tooltip="apply the two rules above to these links too"
        )
        self.path = W.Text("", description="file")
        self.save_button, self.load_button = W.Button(description="Save YAML"), W.Button(description="Load YAML")
        self.reset_button = W.Button(description="Start again", tooltip=f"return to {cluster.name}")
        self.status = Message()
        super().__init__([])
        self.preset.observe(self._preset_chosen, "value")
        self.add.on_click(lambda _: self._added())
        self.save_button.on_click(lambda _: self.save())
        self.load_button.on_click(lambda _: self.load())
        self.reset_button.on_click(lambda _: self.restart())
        self._links = (self.within_gbps, self.within_ms, self.between_gbps, self.between_ms)
        for link in self._links:
            link.observe(self._relinked, "value")
        self.forget_button.on_click(lambda _: self.forget_exceptions())
        for field in (self.name, self.coordinator, self.model):
            field.observe(self._edited, "value")

    def _description(self, settings: list[W.Widget]) -> list[W.Widget]:
        """The fields that describe the cluster and the model, laid out with further `settings`."""
        head = W.HTML("<b>machines · GPU · GPUs in each machine · region</b>")
        machines = W.VBox([self.preset, self.name, head, self._table, self.add])
        links = W.VBox(
            [
                W.HTML("<b>links</b>"),
                self.within,
                self.between,
                W.HBox([self.exceptions, self.forget_button]),
            ]
        )
        settings = W.VBox([self.model, self.coordinator, *settings])
        return [W.HBox([machines, settings], layout=W.Layout(flex_flow="row wrap")), links]

    # ---- description -----------------------------------------------------------------------------------------

    def fill(self, cluster: Cluster) -> None:
        """Show `cluster` in the table. Names and exceptional links are kept, although the table does not show them."""
        self._filling = True
        self._given, self._network, self._changed = cluster, cluster.network, False
        self.rows = [self._row(row) for row in table_of(cluster)]
        self._table.children = tuple(self.rows)
        for link, field in self._rules():
            if link is not None:
                field.show(link)
        # A rule counts as changed only when one of its fields changes.
        self._shown = (self.within.values, self.between.values)
        self.coordinator.value = cluster.coordinator.region
        self.name.value = cluster.name
        if self.path.value == self._own_path:
            self._own_path = self.path.value = f"{cluster.name}.yaml"
        self._filling = False
        self._tell_exceptions(())
        self.status.say(f"{count_text(len(cluster.nodes), 'machine')}. Press Solve.")

    def cluster(self) -> Cluster:
        """The cluster that the table describes. An InputError or a pydantic error names what is wrong in it."""
        return self._edited_cluster()[0]

    def _edited_cluster(self) -> tuple[Cluster, tuple[LinkException, ...]]:
        if not self._changed:
            return self._given, ()
        within, between = (
            link if link is not None and field.values == shown else field.link()
            for shown, (link, field) in zip(self._shown, self._rules(), strict=True)
        )
        network = self._network.model_copy(update={"within_region": within, "between_regions": between})
        rows = [row.row() for row in self.rows]
        name, region = self.name.value.strip() or self._given.name, self.coordinator.value
        return apply_table(self._given, rows, name=name, network=network, coordinator_region=region)

    def _rules(self) -> tuple[tuple[Link | None, LinkField], ...]:
        return ((self._network.within_region, self.within), (self._network.between_regions, self.between))

    def forget_exceptions(self) -> None:
        """Drop the exceptional links, so that the two rules apply to all links."""
        self._network = self._network.model_copy(update={"links": ()})
        self._tell_exceptions(())
        self._relinked()

    def _tell_exceptions(self, lost: tuple[LinkException, ...]) -> None:
        kept = len(self._network.links) - len(lost)
        lines = []
        if kept:
            have, own = agreeing(kept, "has", "have"), agreeing(kept, "its own", "their own")
            lines.append(
                f"{count_text(kept, 'link')} {have} a bandwidth and latency of {own}. "
                f"The rules above do not change {agreeing(kept, 'it', 'them')}."
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
        self.status.say(f"Saved {count_text(len(cluster.nodes), 'machine')} to {self.path.value}.", "good")

    def restart(self) -> None:
        """Return to the cluster that the editor began with."""
        self.fill(self._start)

    def load(self) -> None:
        """Read the cluster from the file named in the form."""
        try:
            self.fill(Cluster.load(self.path.value))
        except HelixKitError as error:
            self.status.say(error_text(error), "bad")

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
        """A rule for links was changed."""
        if not self._filling:
            self._changed = True


def _values(link: Link | None, default: tuple[float, float]) -> tuple[float, float]:
    """Bandwidth in gbps and latency in ms of a link."""
    return default if link is None else (link.bandwidth_gbps, link.latency_ms)
