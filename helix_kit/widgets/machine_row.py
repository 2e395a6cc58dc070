"""A line of the cluster editor's table."""

from __future__ import annotations

import ipywidgets as W

from helix_kit.profiles import gpus

MOST_MACHINES = 1000


class MachineRow(W.HBox):
    """One line of the table: so many machines of a kind in a region."""

    def __init__(self, gpu: str, per_node: int, count: int, region: str) -> None:
        self.gpu = W.Dropdown(options=list(gpus()), value=gpu, layout=W.Layout(width="140px"))
        self.per_node = W.BoundedIntText(per_node, min=1, max=16, layout=W.Layout(width="70px"))
        self.count = W.BoundedIntText(count, min=0, max=MOST_MACHINES, layout=W.Layout(width="80px"))
        self.region = W.Text(region, layout=W.Layout(width="130px"), continuous_update=False)
        self.remove = W.Button(description="✕", tooltip="remove this line", layout=W.Layout(width="40px"))
        super().__init__([self.count, self.gpu, self.per_node, self.region, self.remove])
