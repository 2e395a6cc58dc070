"""Linear layers on a CPU that are fast for few rows. They replace those of a model; the model's code stays unchanged.

A step of a worker has one row for each request that decodes, often fewer than 32. For so few rows two things cost time
that do not matter in a large batch. `replace_linear_layers` changes both:

* The way of a product in float32. Our kernel (`tile_kernel`), torch's product with the matrix as stored or by columns,
  and a copy in oneDNN's blocks: which is the fastest depends on the processor, the shape and the number of rows.
  `layout_choice` measures it. In half precision a matrix keeps its layout.
* Many small products. Projections of the same rows (query, key and value; gate and up) become one product with a joined
  matrix. Each projection then takes its columns of the result.

The cost is memory. Each matrix has at most one packed copy beside the plain one. oneDNN also makes a kernel for each
number of rows and shape of matrix that it meets: 0.6 MB and some milliseconds each. From `PADDED_FROM` rows on, the
rows are therefore padded to a multiple of `ROW_STEP`: 43 kernels a shape instead of 127, about 130 MB for a model's
five shapes. Fewer rows are not padded, because that would cost 10 to 25 % of the time of a step. Weights that are
joined or laid out again are also no longer pages of the checkpoint file that several processes share.
"""

from __future__ import annotations

import torch

from helix_kit.runtime.worker.layout_choice import (
    ALIGNED_BYTES,
    MAX_FEW_ROWS,
    layouts_of,
    pack,
    packed_product,
    tiled_product,
)

JOINED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of modules that the model's code applies to the same tensor."""
PADDED_FROM, ROW_STEP = 32, 8


class CpuLinear(torch.nn.Module):
    """``x @ weight.T + bias`` for a `weight` (out, in) that is on a CPU and does not change."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        # Plain attributes rather than parameters: nothing loads or trains them.
        self._bias = None if bias is None else bias.data
        weight = weight.data
        outside, inside = weight.shape
        layouts = layouts_of(outside, inside, weight.dtype, bias is not None)
        self._packed = None if layouts.packed_from is None else pack(weight)
        self._packed_from = layouts.packed_from or 1
        self._weight = weight.t().contiguous().t() if layouts.by_columns else weight
        if layouts.tiled_to and weight.data_ptr() % ALIGNED_BYTES:  # vectors would lie in two lines of the cache
            self._weight = weight.clone()
        self._tiled = tiled_product(self._weight) if layouts.tiled_to else None
        self._tiled_to = layouts.tiled_to if self._tiled else 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Rows (..., in) to rows (..., out)."""
        rows = x.shape[:-1].numel()
        if self._tiled is not None and rows <= self._tiled_to:
            result = self._tiled(x)
            return result if self._bias is None else result.add_(self._bias)
        if self._packed is None or not self._packed_from <= rows <= MAX_FEW_ROWS:
            return torch.nn.functional.linear(x, self._weight, self._bias)
        padding = -rows % ROW_STEP if rows > PADDED_FROM else 0
        if not padding:
            return packed_product(x, self._packed, self._bias)
        padded = torch.nn.functional.pad(x.reshape(rows, -1), (0, 0, 0, padding))
        return packed_product(padded, self._packed, self._bias)[:rows].view(*x.shape[:-1], -1)


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
