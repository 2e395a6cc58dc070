"""The matrices of few bits of one layer: read from a checkpoint that stores them, or rounded from one that does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from helix_kit.errors import InputError
from helix_kit.runtime.weights.experts import is_expert
from helix_kit.runtime.weights.families import ExpertNames
from helix_kit.runtime.weights.low_bit import LowBitWeight, join, quantize
from helix_kit.runtime.weights.low_bit_files import LowBitFormat, StoredTensor

if TYPE_CHECKING:
    import torch

Tensors = dict[str, Any]
"""By name: tensors, `LowBitWeight`s, and tuples of these with a matrix for each expert."""


def low_bit_matrices(names: Iterable[str], form: LowBitFormat) -> list[str]:
    """Which matrices are stored in the format, without the ``.weight`` at the end of their names."""
    return [name.removesuffix(f".{form.marker}") for name in names if name.endswith(f".{form.marker}")]


def stored_tensors(
    expected: Mapping[str, tuple[int, ...]], found: set[str], form: LowBitFormat, where: object
) -> dict[str, StoredTensor]:
    """The tensors that the files must hold in the place of those of `expected` that are quantised.

    Parameters
    ----------
    expected
        Shape of each tensor of the model as if it were not quantised.
    found
        Names of the tensors in the files. Tensors that may be missing are part of the result where they are among them.
    form
        The format of the quantised matrices.
    where
        The checkpoint, for errors.
    """
    stored: dict[str, StoredTensor] = {}
    for matrix in low_bit_matrices(sorted(found), form):
        name = f"{matrix}.weight"
        shape = expected.get(name, ())
        if len(shape) != 2 or not name.startswith("model.layers."):
            if name in expected or name.startswith("model.layers."):
                expected_text = "only projections of attention, MLP and experts may be"
                raise InputError(f"tensor {name!r} is quantised: {expected_text}", where=where)
            continue
        outputs, inputs = shape
        reason = form.refuses(outputs, inputs)
        if reason is not None:
            raise InputError(f"tensor {name!r} cannot be stored as {form.name}: {reason}", where=where)
        for end, tensor in form.tensors(outputs, inputs).items():
            if not tensor.optional or f"{matrix}.{end}" in found:
                stored[f"{matrix}.{end}"] = tensor
    return stored


def read_matrices(
    names: Iterable[str],
    form: LowBitFormat,
    read: Callable[[list[str]], Mapping[str, torch.Tensor]],
    device: torch.device,
    where: object,
) -> tuple[dict[str, LowBitWeight], set[str]]:
    """The quantised matrices of a layer by their names, and the names of the tensors that they were read from.

    Parameters
    ----------
    names
        All tensors of the layer, by their names in it.
    form
        The format of the quantised matrices.
    read
        Reads tensors, as they are stored.
    device
        Of the result.
    where
        The checkpoint, for errors.
    """
    names, matrices, used = list(names), {}, set()
    present = set(names)
    for matrix in low_bit_matrices(names, form):
        ends = [end for end in form.tensors(form.bits * 32, form.group or 32) if f"{matrix}.{end}" in present]
        tensors = read([f"{matrix}.{end}" for end in ends])
        stored = {end: tensors[f"{matrix}.{end}"] for end in ends}
        matrices[f"{matrix}.weight"] = form.read(stored, matrix, where).to(device)
        used |= set(tensors)
    return matrices, used


def join_low_bit_experts(matrices: Mapping[str, LowBitWeight], names: ExpertNames, where: object) -> Tensors:
    """The matrices of a layer, with those of its experts as a tuple each of gate and up projection, and of down."""
    experts = [name for name in matrices if is_expert(name, names)]
    layer: Tensors = {
        f"mlp.{name.removeprefix(f'{names.block}.')}" if name.startswith(f"{names.block}.") else name: matrix
        for name, matrix in matrices.items()
        if name not in set(experts)
    }
    if not experts:
        return layer
    gate_up, down = [], []
    for index in range(1 + max(int(name.removeprefix(f"{names.block}.experts.").split(".")[0]) for name in experts)):
        prefix = f"{names.block}.experts.{index}"
        parts = [matrices.get(f"{prefix}.{name}.weight") for name in (names.gate, names.up, names.down)]
        joined = join(parts[:2]) if None not in parts else None  # type: ignore[arg-type]
        if joined is None:
            raise InputError(f"expert {index} is not quantised as a whole, or not in one way", where=where)
        gate_up.append(joined)
        down.append(parts[2])
    return layer | {"mlp.experts.gate_up_proj": tuple(gate_up), "mlp.experts.down_proj": tuple(down)}


def round_layer(tensors: Mapping[str, torch.Tensor], kind: str) -> Tensors:
    """A layer whose projections of attention, MLP and experts are rounded to codes of `kind`."""
    return {name: _rounded(name, tensor, kind) for name, tensor in tensors.items()}


def _rounded(name: str, tensor: torch.Tensor, kind: str) -> Any:
    if tensor.dim() == 3:
        return tuple(quantize(matrix, kind) for matrix in tensor)
    return quantize(tensor, kind) if tensor.dim() == 2 and name.endswith("_proj.weight") else tensor
