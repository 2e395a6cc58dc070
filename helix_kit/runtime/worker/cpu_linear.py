"""A layer's matrix products as a step needs them: few rows at a time, on a CPU, with the model's code unchanged.

A step of a worker has as many rows as requests decode, often fewer than 32. Two things cost there that do not
matter in a large batch, and `replace_linear_layers` changes them in a layer's modules, not in its code:

* the layout of a matrix. In float32 one row is fastest by a matrix that lies column by column, or row by row where it
  has more columns in than out. Matrices with many more columns out than in (gate and up, and the vocabulary's) are also
  packed into oneDNN's blocks, with which 2 to 32 rows take 10 to 45 % less time, and one row half as much again: these
  are kept in both layouts. In half precision products of a matrix that lies by columns take many times as long, and
  it stays as it is;
* small cpu_linear. Projections of the same rows (query, key and value; gate and up) become one product of a joined
  matrix, of which each takes its columns.

The second copy of the packed matrices is what this costs; of a plain Llama layer in float32 it is half the bytes again.
oneDNN also makes a kernel for each number of rows and shape of matrix that it meets (0.5 MB and a millisecond, once;
some 120 MB when all are met). Padding to fewer sizes would save that, and cost 10 to 25 % of the time of many steps.
Where weights are laid out afresh or joined, they no longer are pages of the file that processes share.
"""

from __future__ import annotations

import torch

JOINED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of modules beside each other that the model's code applies to one and the same tensor."""
MIN_PACKED_RATIO = 4
"""Columns out per column in from which a matrix is packed."""
PACKED_FOR_ROWS = 32
"""Rows for which a matrix is packed; the blocks that oneDNN then chooses serve 2 to 256 rows alike."""
MAX_PACKED_ROWS = 128
"""With more rows (long prompts) columns are as fast, then faster."""


class CpuLinear(torch.nn.Module):
    """``x @ weight.T + bias`` for a `weight` (out, in) that is on a CPU and will not change."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        # Not parameters: nothing loads or trains them.
        self._bias = None if bias is None else bias.data
        weight = weight.data
        self._packed = _pack(weight)
        outside, inside = weight.shape
        by_columns = weight.dtype == torch.float32 and outside >= inside
        self._weight = weight.t().contiguous().t() if by_columns else weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Rows (..., in) to rows (..., out)."""
        if self._packed is not None and 1 < x.shape[:-1].numel() <= MAX_PACKED_ROWS:
            return torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")
        return torch.nn.functional.linear(x, self._weight, self._bias)


def _pack(weight: torch.Tensor) -> torch.Tensor | None:
    """The matrix in oneDNN's blocks; None where that does not pay, or is not to be had."""
    pays = weight.dtype == torch.float32 and len(weight) >= MIN_PACKED_RATIO * weight.shape[1]
    if not pays or not torch.backends.mkldnn.is_available():
        return None
    try:
        return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), PACKED_FOR_ROWS)
    except (AttributeError, RuntimeError):  # a build of torch without these operators
        return None


class JoinedLinear:
    """Several products of the same rows, computed when the first of them is asked for."""

    def __init__(self, members: list[torch.nn.Linear]) -> None:
        biases = [m.weight.new_zeros(len(m.weight)) if m.bias is None else m.bias.data for m in members]
        has_bias = any(m.bias is not None for m in members)
        weight = torch.cat([m.weight.data for m in members])
        self._product = CpuLinear(weight, torch.cat(biases) if has_bias else None)
        self._sizes = [len(m.weight) for m in members]
        self._rows: torch.Tensor | None = None
        self._parts: list[torch.Tensor] = []

    def part(self, rows: torch.Tensor, index: int) -> torch.Tensor:
        """What member `index` makes of `rows`."""
        if rows is not self._rows:
            self._rows, self._parts = rows, list(self._product(rows).split(self._sizes, dim=-1))
        found = self._parts[index]
        if index + 1 == len(self._sizes):  # the last one asked: nothing is held until the next step
            self._rows, self._parts = None, []
        return found


class JoinedOutput(torch.nn.Module):
    """One of the products of a `JoinedLinear`, in the place of its module."""

    def __init__(self, joined: JoinedLinear, index: int) -> None:
        super().__init__()
        self._joined, self._index = joined, index

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Rows (..., in) to rows (..., out)."""
        return self._joined.part(x, self._index)


@torch.no_grad()
def replace_linear_layers(layer: torch.nn.Module) -> None:
    """Replace the products of a layer whose weights lie on a CPU."""
    for module in list(layer.modules()):
        children = dict(module.named_children())
        for names in JOINED:
            members = [children.get(name) for name in names]
            if all(_is_ours(member) for member in members):
                joined = JoinedLinear(members)  # type: ignore[arg-type]
                for index, name in enumerate(names):
                    setattr(module, name, JoinedOutput(joined, index))
                    del children[name]
        for name, child in children.items():
            if _is_ours(child):
                setattr(module, name, CpuLinear(child.weight, child.bias))  # type: ignore[arg-type]


def _is_ours(module: torch.nn.Module | None) -> bool:
    return type(module) is torch.nn.Linear and module.weight.device.type == "cpu"
