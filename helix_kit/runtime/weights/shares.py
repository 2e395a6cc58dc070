"""Which part of each tensor of a layer a rank holds, where several ranks compute every layer together.

Tensor parallelism as Megatron-LM has it: a rank holds some of the attention's heads and some columns of the MLP. Its
matrices that read the hidden state (query, key, value, gate, up) are rows of the whole ones; those that write to it
(output, down) are columns. So the results of all ranks add up to that of the whole layer. Norms are held by each rank.

With fewer key and value heads than ranks, several ranks hold the same one: the one that their query heads read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from helix_kit.errors import InputError
from helix_kit.model import Model
from helix_kit.profiles.node_splits import undivided

TENSOR_PARALLEL_FAMILIES = (
    "cohere2", "gemma", "gemma2", "gemma3_text", "granite", "llama", "mistral", "qwen2", "qwen3", "seed_oss", "smollm3",
)  # fmt: skip
"""`model_type`s whose layers are divided: each is tested against transformers (tests/runtime/worker/test_ranks.py)."""
SUMMED = ("self_attn.o_proj", "mlp.down_proj")
"""Modules of a layer whose results the ranks add up."""

Place = tuple[slice, ...]
"""What is taken of a tensor, by its dimensions."""


@dataclass(frozen=True)
class LayerShare:
    """The part of every layer that rank `rank` of `ranks` holds.

    Examples
    --------
    Four ranks share eight query heads and two key heads of 16 values each: the third rank reads the second key head.

    >>> share = LayerShare(2, 4, num_heads=8, num_kv_heads=2, head_dim=16, intermediate_size=96)
    >>> share.place("self_attn.q_proj.weight"), share.place("self_attn.k_proj.weight")
    ((slice(64, 96, None),), (slice(16, 32, None),))
    >>> share.place("mlp.down_proj.weight"), share.place("input_layernorm.weight")
    ((slice(None, None, None), slice(48, 72, None)), ())
    """

    rank: int
    ranks: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int

    @property
    def own_heads(self) -> int:
        """Query heads of this rank."""
        return self.num_heads // self.ranks

    @property
    def own_kv_heads(self) -> int:
        """Key and value heads of this rank."""
        return max(1, self.num_kv_heads // self.ranks)

    @property
    def own_columns(self) -> int:
        """Columns of the MLP of this rank."""
        return self.intermediate_size // self.ranks

    def place(self, name: str) -> Place:
        """What this rank takes of the tensor called `name` in its layer; empty: all of it."""
        module, _, kind = name.rpartition(".")
        rows = {
            "self_attn.q_proj": (self.rank * self.own_heads, self.own_heads, self.head_dim),
            "self_attn.k_proj": (self._first_kv_head, self.own_kv_heads, self.head_dim),
            "self_attn.v_proj": (self._first_kv_head, self.own_kv_heads, self.head_dim),
            "mlp.gate_proj": (self.rank * self.own_columns, self.own_columns, 1),
            "mlp.up_proj": (self.rank * self.own_columns, self.own_columns, 1),
        }
        columns = {
            "self_attn.o_proj": rows["self_attn.q_proj"],
            "mlp.down_proj": rows["mlp.gate_proj"],
        }
        if module in rows:
            return (_span(*rows[module]),)
        if module in columns and kind == "weight":
            return (slice(None), _span(*columns[module]))
        return ()

    @property
    def _first_kv_head(self) -> int:
        return self.rank * self.num_kv_heads // self.ranks

    def is_zero(self, name: str) -> bool:
        """Whether another rank counts the tensor called `name`: biases are added once, not by each rank."""
        module, _, kind = name.rpartition(".")
        return self.rank > 0 and kind == "bias" and module in SUMMED


def _span(first: int, count: int, size: int) -> slice:
    return slice(first * size, (first + count) * size)


def check_tensor_parallel(config: Mapping[str, Any], model: Model, ranks: int, where: object) -> None:
    """Raise InputError unless `ranks` ranks can share each layer of a checkpoint; the message says `where` it is.

    Parameters
    ----------
    config
        Its config.json.
    model
        Its sizes.
    ranks
        How many ranks there are.
    where
        What the ranks belong to, such as a node of the plan.
    """
    family = config.get("model_type")
    if family not in TENSOR_PARALLEL_FAMILIES:
        expected = f"tensor_parallel = {ranks} is served for {', '.join(TENSOR_PARALLEL_FAMILIES)}"
        raise InputError(f"{expected}: set tensor_parallel: 1", where=where, field="model_type", value=family)
    if config.get("quantization_config"):
        expected = f"tensor_parallel = {ranks} is not served with quantised weights: set tensor_parallel: 1"
        raise InputError(expected, where=where, field="quantization_config")
    lacking = undivided(model, ranks)
    if lacking:
        field, value, expected = lacking
        raise InputError(
            f"expected {expected} with tensor_parallel = {ranks}: set one that divides it, or 1",
            where=where,
            field=field,
            value=value,
        )
