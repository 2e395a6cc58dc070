"""What fits into a node's memory: layers, their KV cache, the embedding and the output projection.

The rule is independent of where in the model a node's layers lie, so that every placement method may use it. The node
with the first layers holds the embedding, the one with the last layers the output projection, and only a node with all
layers holds both. So every node keeps room for one of the two tables, and for both with all layers.

>>> from helix_kit.model import Model
>>> memory = NodeMemory(gpus=2, gpu_gb=80.0, share=0.9)
>>> memory.max_layers(Model.preset("llama3.1-70b")), round(memory.usable_gb, 1)
(80, 72.0)
"""

from __future__ import annotations

from dataclasses import dataclass

from helix_kit._wording import count_text
from helix_kit.model import Model
from helix_kit.typical_request import ROUND_CONTEXT_TOKENS

MIN_KV_TOKENS = 4096
"""Tokens of KV cache in each layer below which a node is of no use.

The longest requests of the paper's trace have 2,048 + 1,024 tokens. The estimate of T(k) counts 0.3 of the cache as in
use, which must hold a typical request of 990 tokens."""


def tables_gb(model: Model, k: int) -> float:
    """GB of embedding and output projection for which a node with `k` layers keeps room.

    Parameters
    ----------
    model
        Each table has vocabulary x hidden size elements; tied embeddings are one table.
    k
        Layers that the node holds.

    Returns
    -------
    float
        One table for a part of the model, both for all of it.

    Examples
    --------
    >>> model = Model.preset("llama3.1-70b")
    >>> round(tables_gb(model, 79), 2), round(tables_gb(model, 80), 2)
    (2.1, 4.2)
    """
    count = 2 if k >= model.num_layers and not model.tied_embeddings else 1
    return count * model.embedding_gb


def min_kv_gb(model: Model) -> float:
    """GB of KV cache that each layer needs at least.

    Parameters
    ----------
    model
        Its KV heads decide, or its layers' kinds: then the kind that needs most counts.

    Returns
    -------
    float
        `MIN_KV_TOKENS` tokens.

    Examples
    --------
    >>> round(min_kv_gb(Model.preset("llama3.1-70b")), 4)
    0.0168
    """
    if model.layer_kinds:
        return max(kind.kv_bytes(MIN_KV_TOKENS) for kind in model.layer_kinds) / 1e9
    return MIN_KV_TOKENS * model.kv_bytes_per_token_layer / 1e9


def kv_bytes_per_token(model: Model, counts: tuple[int, ...]) -> float:
    """Bytes of KV cache of a token in a layer, on average over layers of these kinds, for a request of usual length.

    Parameters
    ----------
    model
        A layer with a window keeps no more tokens than it; one with a state takes it once a request.
    counts
        Layers of each of the model's kinds. Empty: all layers are alike.

    Returns
    -------
    float
        Of a request of `ROUND_CONTEXT_TOKENS` tokens.

    Examples
    --------
    A window of 128 tokens keeps 128 of 1,000:

    >>> round(kv_bytes_per_token(Model.preset("gpt-oss-20b"), (1, 0)), 1)
    262.1
    >>> round(kv_bytes_per_token(Model.preset("gpt-oss-20b"), (1, 1)), 1)
    1155.1
    """
    if not model.layer_kinds:
        return model.kv_bytes_per_token_layer
    total = sum(n * k.kv_bytes(ROUND_CONTEXT_TOKENS) for n, k in zip(counts, model.layer_kinds, strict=True))
    # Linear attention keeps a state and nothing per token: a byte stands for it where there is nothing at all.
    return max(1.0, total / (sum(counts) * ROUND_CONTEXT_TOKENS))


@dataclass(frozen=True)
class NodeMemory:
    """Memory of a node.

    Examples
    --------
    >>> NodeMemory(gpus=1, gpu_gb=24.0, share=0.9).max_layers(Model.preset("llama3.1-70b"))
    11
    """

    gpus: int
    """GPUs of the node."""
    gpu_gb: float
    """Memory of each GPU in 10^9 bytes."""
    share: float
    """Share of it for weights, tables and KV cache."""

    @property
    def usable_gb(self) -> float:
        """GB of each GPU for weights, tables and KV cache."""
        return self.gpu_gb * self.share

    def kv_tokens(self, model: Model, k: int) -> int:
        """Tokens of KV cache on all GPUs, summed over `k` layers; below zero where the weights alone do not fit."""
        left_gb = self.gpus * self.usable_gb - k * model.layer_gb - tables_gb(model, k)
        return int(left_gb * 1e9 // kv_bytes_per_token(model, (k,) if model.layer_kinds else ()))

    def kv_tokens_of(self, model: Model, counts: tuple[int, ...]) -> int:
        """Tokens of KV cache, summed over layers of these kinds; below zero where the layers do not fit.

        The fullest of several GPUs is taken to hold the largest layers of the range.
        """
        kinds = [kind for kind, n in zip(model.layer_kinds, counts, strict=True) for _ in range(n)]
        weights_gb = sum(kind.all_bytes for kind in kinds) / 1e9
        left_gb = self.gpus * self.usable_gb - weights_gb - tables_gb(model, len(kinds))
        needed_gb = sorted((kind.all_bytes + kind.kv_bytes(MIN_KV_TOKENS)) / 1e9 for kind in kinds)
        tables = tables_gb(model, len(kinds)) if self.gpus == 1 else model.embedding_gb
        on_fullest = -(-len(kinds) // self.gpus)
        if sum(needed_gb[len(kinds) - on_fullest :]) + tables > self.usable_gb:
            return -1
        return int(left_gb * 1e9 // kv_bytes_per_token(model, counts))

    def _parts(self, model: Model, k: int) -> tuple[int, float, float, float]:
        """What the fullest GPU holds at least: its layers, then GB of weights, tables and KV cache.

        Layers cannot be divided among GPUs that serve them one after another. Two GPUs hold one table each.
        """
        layers = -(-k // self.gpus)
        tables = tables_gb(model, k) if self.gpus == 1 else model.embedding_gb
        return layers, layers * model.layer_gb, tables, layers * min_kv_gb(model)

    def max_layers(self, model: Model) -> int:
        """The largest number of layers that leave each of them `MIN_KV_TOKENS` tokens; 0 when not even one fits."""
        sizes = range(model.num_layers, 0, -1)
        return next((k for k in sizes if sum(self._parts(model, k)[1:]) <= self.usable_gb), 0)

    def sum_for(self, model: Model, k: int) -> str:
        """The sum for `k` layers in words: what the fullest GPU needs, and what it has."""
        layers, *needed_gb = self._parts(model, k)
        both = self.gpus == 1 and k == model.num_layers and not model.tied_embeddings
        names = (
            f"weights of {count_text(layers, 'layer')}",
            "embedding and output projection" if both else "embedding or output projection",
            f"KV cache of {MIN_KV_TOKENS:,} tokens in each layer",
        )
        parts = " + ".join(f"{gb:.2f} GB {name}" for gb, name in zip(needed_gb, names))
        where = "" if self.gpus == 1 else " on one of its GPUs"
        has = f"{self.gpu_gb:g} GB x {self.share:g} = {self.usable_gb:.2f} GB"
        return f"{parts} = {sum(needed_gb):.2f} GB{where}, and has {has}"


__all__ = ["MIN_KV_TOKENS", "NodeMemory", "kv_bytes_per_token", "min_kv_gb", "tables_gb"]
