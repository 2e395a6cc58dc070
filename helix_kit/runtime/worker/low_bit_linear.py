"""Linear layers and experts whose weights stay in few bits; they replace those of a model, whose code stays unchanged.

Weights are expanded where they are used. With few rows on a CPU, `low_bit_kernels` does it row by row of the matrix, or
`torch_int4` where rows are in bfloat16. On a GPU `gpu_products` takes torch's kernels where they suit. Otherwise a part
of the matrix, or on a GPU all of it, is expanded to the dtype of the step, multiplied and dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any

import torch

from helix_kit.runtime.weights.low_bit import LowBitWeight
from helix_kit.runtime.worker.cpu_product import CpuProduct
from helix_kit.runtime.worker.gpu_products import ExpandedProduct, GpuFp8, GpuInt4, gpu_product
from helix_kit.runtime.worker.torch_int4 import TorchInt4, rows_by_torch

Product = CpuProduct | TorchInt4 | ExpandedProduct | GpuInt4 | GpuFp8

Tensors = Mapping[str, torch.Tensor | LowBitWeight | tuple[LowBitWeight, ...]]
"""A layer's tensors by their names; experts are a tuple with a matrix for each of them."""


class LowBitLinear(torch.nn.Module):
    """``x @ weight.T + bias`` for a kept weight; `dtype` is that of the rows, where it is known."""

    def __init__(self, weight: LowBitWeight, bias: torch.Tensor | None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self._bias, self.product = bias, product_of(weight, dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Rows (..., in) to rows (..., out)."""
        result = self.product.multiply(x)
        return result if self._bias is None else result + self._bias

    of = forward


def product_of(weight: LowBitWeight, dtype: torch.dtype | None) -> Product:
    """How rows of `dtype`, where it is known, are multiplied with a kept weight."""
    if weight.codes.device.type != "cpu":
        return gpu_product(weight, dtype)
    many_rows = rows_by_torch(weight, dtype)
    return CpuProduct(weight) if many_rows is None else TorchInt4(weight, many_rows)


class LowBitExperts(torch.nn.Module):
    """Experts of a layer, each with two kept matrices. The gate between them is the replaced module's own.

    `biases` are those of all experts, (experts, outputs), for gate and up, and for down.
    """

    def __init__(
        self,
        gate_up: tuple[LowBitWeight, ...],
        down: tuple[LowBitWeight, ...],
        gate: Callable[[Any], torch.Tensor],
        dtype: torch.dtype | None = None,
        biases: Sequence[torch.Tensor | None] = (None, None),
    ) -> None:
        super().__init__()
        self.gate_up, self.down = (
            torch.nn.ModuleList(
                LowBitLinear(weight, None if bias is None else bias[index], dtype) for index, weight in enumerate(part)
            )
            for part, bias in zip((gate_up, down), biases, strict=True)
        )
        self._gate = gate

    def forward(self, hidden: torch.Tensor, chosen: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """Rows (rows, hidden) after the experts `chosen` (rows, active), weighted by `shares` (rows, active)."""
        result = torch.zeros_like(hidden)
        for expert in chosen.unique().tolist():
            rows, places = torch.where(chosen == expert)
            values = self.down[expert](self._gate(self.gate_up[expert](hidden[rows])))
            result.index_add_(0, rows, (values * shares[rows, places, None]).to(hidden.dtype))
        return result


def product_names(layers: Iterable[Any]) -> list[str]:
    """How the kept weights of layers on a GPU are multiplied, each way once, for people."""
    names = set()
    for layer in layers:
        parts = layer.modules() if isinstance(layer, torch.nn.Module) else vars(layer).values()
        products = [part.product for part in parts if isinstance(part, LowBitLinear)]
        names |= {product.name for product in products if isinstance(product, ExpandedProduct | GpuInt4 | GpuFp8)}
    return sorted(names)


def place_low_bit(layer: torch.nn.Module, tensors: Tensors, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Put the kept matrices of a layer in the places of its modules; returns the tensors that are left to load.

    `dtype` is that of the layer's rows.
    """
    left: MutableMapping[str, Any] = dict(tensors)
    for name in [name for name, tensor in left.items() if isinstance(tensor, LowBitWeight)]:
        path = name.removesuffix(".weight")
        parent, _, child = path.rpartition(".")
        module = LowBitLinear(left.pop(name), left.pop(f"{path}.bias", None), dtype)
        setattr(layer.get_submodule(parent), child, module)
    if any(isinstance(tensor, tuple) for tensor in left.values()):
        block: Any = layer.get_submodule("mlp")
        parts = ("gate_up_proj", "down_proj")
        gate_up, down = (left.pop(f"mlp.experts.{part}") for part in parts)
        biases = [left.pop(f"mlp.experts.{part}_bias", None) for part in parts]
        block.experts = LowBitExperts(gate_up, down, block.experts._apply_gate, dtype, biases)
    return dict(left)
