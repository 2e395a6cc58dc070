"""One row of the cluster editor's table of machines."""

from __future__ import annotations

from collections.abc import Collection

import ipywidgets as W

from helix_kit.catalogue import MAX_GPUS_PER_NODE, gpus
from helix_kit.widgets.cluster_table import TableRow

MAX_MACHINES = 1000


class MachineRow(W.HBox):
    """Number of machines, GPU, GPUs in each machine and region.

    Parameters
    ----------
    row
        Initial values of the fields.
    own_gpus
        Names of GPUs that the cluster itself describes. They stand before those of the catalogue.
    """

    def __init__(self, row: TableRow, own_gpus: Collection[str] = ()) -> None:
        self.names = row.names
        self._given = row
        known = [*own_gpus, *(name for name in gpus() if name not in own_gpus)]
        self.gpu = W.Dropdown(options=known, value=row.gpu, layout=W.Layout(width="140px"))
        self.per_node = W.BoundedIntText(row.gpus_per_node, min=1, max=MAX_GPUS_PER_NODE, layout=W.Layout(width="70px"))
        self.count = W.BoundedIntText(row.count, min=0, max=MAX_MACHINES, layout=W.Layout(width="80px"))
        self.region = W.Text(row.region, layout=W.Layout(width="130px"), continuous_update=False)
        self.remove = W.Button(description="✕", tooltip="remove this row", layout=W.Layout(width="40px"))
        super().__init__([self.count, self.gpu, self.per_node, self.region, self.remove])

    def row(self) -> TableRow:
        """Values of the fields. What the GPUs of a machine share stays as in the row, while GPU and number do."""
        is_same = (self.gpu.value, self.per_node.value) == (self._given.gpu, self._given.gpus_per_node)
        shared = (self._given.gpu_link, self._given.tensor_parallel) if is_same else ()
        return TableRow(self.gpu.value, self.per_node.value, self.count.value, self.region.value, self.names, *shared)
