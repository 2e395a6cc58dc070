"""A line of the cluster editor's table."""

from __future__ import annotations

from collections.abc import Collection

import ipywidgets as W

from helix_kit.profiles import gpus
from helix_kit.widgets.edited import Line

MOST_MACHINES = 1000
MOST_GPUS = 64
"""In one machine; as in `Node`."""


class MachineRow(W.HBox):
    """One line of the table: so many machines of a kind in a region.

    `own` are names of GPUs that the cluster describes itself; they may be chosen beside the catalogue's.
    """

    def __init__(self, line: Line, own: Collection[str] = ()) -> None:
        self.names = line.names
        known = [*own, *(name for name in gpus() if name not in own)]
        self.gpu = W.Dropdown(options=known, value=line.gpu, layout=W.Layout(width="140px"))
        self.per_node = W.BoundedIntText(line.gpus_per_node, min=1, max=MOST_GPUS, layout=W.Layout(width="70px"))
        self.count = W.BoundedIntText(line.count, min=0, max=MOST_MACHINES, layout=W.Layout(width="80px"))
        self.region = W.Text(line.region, layout=W.Layout(width="130px"), continuous_update=False)
        self.remove = W.Button(description="✕", tooltip="remove this line", layout=W.Layout(width="40px"))
        super().__init__([self.count, self.gpu, self.per_node, self.region, self.remove])

    def line(self) -> Line:
        """What the fields say."""
        return Line(self.gpu.value, self.per_node.value, self.count.value, self.region.value, self.names)
