"""Linear layers on a CPU that are fast for few rows. They replace those of a model; the model's code stays unchanged.

A step of a worker has one row for each request that decodes, often fewer than 32. For so few rows two things cost time
that do not matter in a large batch. `replace_linear_layers` changes both:

* The layout of a weight matrix. In float32 a product with one row is fastest if the matrix is stored by columns, or by
  rows if it has more inputs than outputs. Matrices with many more outputs than inputs (gate and up projection, and the
  output projection to the vocabulary) are also packed into oneDNN's blocks. With blocks 2 to 32 rows take 10 to 45 %
  less time, but one row takes half as much again, so these matrices are kept in both layouts. In half precision a
  matrix stored by columns takes many times as long, so it keeps its layout.
* Many small products. Projections of the same rows (query, key and value; gate and up) become one product with a joined
  matrix. Each projection then takes its columns of the result.

The cost is memory. The packed copies take half the bytes of a plain Llama layer in float32 again. oneDNN also makes a
kernel for each number of rows and shape of matrix that it meets: 0.5 MB and a millisecond each, about 120 MB for all.
Padding to fewer numbers of rows would save that memory, but cost 10 to 25 % of the time of many steps. Weights that are
joined or laid out again are also no longer pages of the checkpoint file that several processes share.
"""

from __future__ import annotations

import torch

JOINED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of modules that the model's code applies to the same tensor."""
MIN_PACKED_RATIO = 4
"""Outputs per input from which a matrix is packed."""
PACKED_FOR_ROWS = 32
"""Number of rows that oneDNN is told when it packs; the blocks that it chooses suit 2 to 256 rows alike."""
MAX_PACKED_ROWS = 128
"""With more rows (long prompts) the layout by columns is as fast or faster."""


class CpuLinear(torch.nn.Module):
    """``x @ weight.T + bias`` for a `weight` (out, in) that is on a CPU and does not change."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        # Plain attributes rather than parameters: nothing loads or trains them.
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
    """The matrix in oneDNN's blocks; None if that is not faster, or not possible with this torch."""
    is_faster = weight.dtype == torch.float32 and len(weight) >= MIN_PACKED_RATIO * weight.shape[1]
    if not is_faster or not torch.backends.mkldnn.is_available():
        return None
    try:
        return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), PACKED_FOR_ROWS)
    except (AttributeError, RuntimeError):  # a build of torch without these operators
        return None


class JoinedLinear:
    """Several linear layers of the same rows. All are computed when the first of them is asked for."""

    def __init__(self, layers: list[torch.nn.Linear]) -> None:
        biases = [m.weight.new_zeros(len(m.weight)) if m.bias is None else m.bias.data for m in layers]
        has_bias = any(m.bias is not None for m in layers)
        weight = torch.cat([m.weight.data for m in layers])
        self._product = CpuLinear(weight, torch.cat(biases) if has_bias else None)
        self._sizes = [len(m.weight) for m in layers]
        self._rows: torch.Tensor | None = None
        self._results: list[torch.Tensor] = []

    def result(self, rows: torch.Tensor, index: int) -> torch.Tensor:
        """The result of layer `index` for `rows`."""
        if rows is not self._rows:
            self._rows, self._results = rows, list(self._product(rows).split(self._sizes, dim=-1))
        result = self._results[index]
        if index + 1 == len(self._sizes):  # the last layer has its result: nothing is kept until the next step
            self._rows, self._results = None, []
        return result


class JoinedOutput(torch.nn.Module):
    """One layer of a `JoinedLinear`, in the place of its module."""

    def __init__(self, joined: JoinedLinear, index: int) -> None:
        super().__init__()
        self._joined, self._index = joined, index

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Rows (..., in) to rows (..., out)."""
        return self._joined.result(x, self._index)


@torch.no_grad()
def replace_linear_layers(layer: torch.nn.Module) -> None:
    """Replace all linear modules of a decoder layer whose weights are on a CPU."""
    for module in list(layer.modules()):
        children = dict(module.named_children())
        for names in JOINED:
            layers = [children.get(name) for name in names]
            if all(_is_cpu_linear(linear) for linear in layers):
                joined = JoinedLinear(layers)  # type: ignore[arg-type]
                for index, name in enumerate(names):
                    setattr(module, name, JoinedOutput(joined, index))
                    del children[name]
        for name, child in children.items():
            if _is_cpu_linear(child):
                setattr(module, name, CpuLinear(child.weight, child.bias))  # type: ignore[arg-type]


def _is_cpu_linear(module: torch.nn.Module | None) -> bool:
    return type(module) is torch.nn.Linear and module.weight.device.type == "cpu"
