"""The layers [start, end) of a model, and nothing else of it, run on ragged batches.

The model's own Hugging Face code is built without memory (on the meta device), the layers of the range keep
their global index and get their weights from the checkpoint, and the rest is dropped. The first range also holds
the embedding, the last one the final norm and the output projection.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch

from helix_kit.runtime.spec import check_dtype
from helix_kit.runtime.weights.checkpoint import Checkpoint
from helix_kit.runtime.worker import attention, cpu_linear, flashinfer
from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS, BlockTable, PagePool
from helix_kit.runtime.worker.transfer import to_device


@dataclass
class RequestRows:
    """What one request brings to a step: `hidden` (tokens, hidden size) at `position`, for layers [start, end)."""

    table: BlockTable
    hidden: torch.Tensor
    position: int
    start: int
    end: int

    @property
    def tokens(self) -> int:
        """Rows of this request in the step."""
        return len(self.hidden)


Segment = tuple[int, int, list[int]]
"""First layer, end, and which of a step's requests pass through these layers."""


def segments(ranges: list[tuple[int, int]]) -> list[Segment]:
    """Split overlapping layer ranges at every boundary: (first layer, end, indices of the ranges that cover it).

    >>> segments([(0, 8), (4, 8)])
    [(0, 4, [0]), (4, 8, [0, 1])]
    """
    bounds = sorted({bound for span in ranges for bound in span})
    parts = []
    for first, end in itertools.pairwise(bounds):
        active = [i for i, (a, b) in enumerate(ranges) if a <= first and end <= b]
        if active:
            parts.append((first, end, active))
    return parts


class ModelLayers:
    """Layers [start, end) of the checkpoint on one device."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        start: int,
        end: int,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        attention_backend: str = "sdpa",
    ) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM

        self.start, self.end = start, end
        self.dtype, self.device = getattr(torch, check_dtype(dtype)), torch.device(device)
        config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)
        self.num_layers: int = config.num_hidden_layers
        self.hidden_size: int = config.hidden_size
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                config, attn_implementation=attention.register(), dtype=self.dtype, trust_remote_code=False
            )
        model.eval().requires_grad_(False)
        base = model.model
        self.num_kv_heads: int = config.num_key_value_heads
        self.head_dim: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.backend = flashinfer.make_backend(
            attention_backend,
            self.dtype,
            self.device,
            num_heads=config.num_attention_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
        )
        self._layers = [base.layers[i] for i in range(start, end)]
        for index, layer in enumerate(self._layers, start):
            layer.load_state_dict(
                checkpoint.read_under(f"model.layers.{index}.", self.dtype, self.device), strict=True, assign=True
            )
            cpu_linear.replace_linear_layers(layer)
        # Built afresh: its tables are buffers without a checkpoint entry, and meta has none.
        self._rotary = type(base.rotary_emb)(config).to(self.device)
        # On a CPU as the file has it: rows are read where the file is mapped, which takes no memory of this process.
        raw = None if self.device.type == "cpu" else self.dtype
        self._embedding = self._read(checkpoint, "model.embed_tokens.weight", raw) if start == 0 else None
        self._norm: torch.nn.Module | None = None
        self._head: Callable[[torch.Tensor], torch.Tensor] | None = None
        if end == self.num_layers:
            base.norm.load_state_dict(
                checkpoint.read_under("model.norm.", self.dtype, self.device), strict=True, assign=True
            )
            self._norm = base.norm
            self._head = self._make_head(checkpoint)

    def _make_head(self, checkpoint: Checkpoint) -> Callable[[torch.Tensor], torch.Tensor]:
        tied = checkpoint.ties_embeddings
        if self.device.type == "cpu":
            name = "model.embed_tokens.weight" if tied else "lm_head.weight"
            return cpu_linear.CpuLinear(self._read(checkpoint, name, self.dtype), None)
        if tied and self._embedding is not None:
            weight = self._embedding
        else:
            weight = self._read(checkpoint, "model.embed_tokens.weight" if tied else "lm_head.weight", self.dtype)
        return functools.partial(torch.nn.functional.linear, weight=weight)

    def _read(self, checkpoint: Checkpoint, name: str, dtype: torch.dtype | None) -> torch.Tensor:
        return checkpoint.read([name], dtype, self.device)[name]

    @property
    def page_bytes(self) -> int:
        """Bytes of keys and values in one page."""
        return 2 * PAGE_TOKENS * self.num_kv_heads * self.head_dim * self.dtype.itemsize

    def new_pool(self, num_pages: int) -> PagePool:
        """A page pool of this stage's shape."""
        return PagePool(num_pages, self.num_kv_heads, self.head_dim, self.dtype, self.device)

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Hidden states (tokens, hidden size) of `token_ids` (tokens,); only where the range starts at 0."""
        assert self._embedding is not None, "only the first layers have the embedding"
        return torch.nn.functional.embedding(token_ids.to(self.device), self._embedding).to(self.dtype)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores (rows, vocabulary) of the next token; only where the range ends at the last layer."""
        assert self._norm is not None and self._head is not None, "only the last layers have the output projection"
        return self._head(self._norm(hidden))

    @torch.inference_mode()
    def run(self, pool: PagePool, batch: list[RequestRows], parts: list[Segment] | None = None) -> list[torch.Tensor]:
        """Hidden states of each request after its last layer here, in batch order.

        The requests may cover different parts of the range. Their block tables must already have room
        (`BlockTable.grow`) for the rows. `parts` are the batch's `segments`, where the caller has them.
        """
        hidden = [rows.hidden for rows in batch]
        for first, end, active in parts or segments([(rows.start, rows.end) for rows in batch]):
            members = [batch[i] for i in active]
            layout = attention.lay_out(
                pool,
                first,
                end - first,
                [(m.table, first - m.start, m.position, m.tokens) for m in members],
                self.backend,
            )
            x = hidden[active[0]] if len(active) == 1 else torch.cat([hidden[i] for i in active])
            x = self._run_layers(x.unsqueeze(0), first, end, members, layout)[0]
            for i, part in zip(active, x.split([m.tokens for m in members])):
                hidden[i] = part
        return hidden

    def _run_layers(
        self, x: torch.Tensor, first: int, end: int, members: list[RequestRows], layout: attention.StepLayout
    ) -> torch.Tensor:
        positions = torch.cat([torch.arange(m.position, m.position + m.tokens) for m in members])
        positions = to_device(positions, self.device).unsqueeze(0)
        rotary = self._rotary(x, positions)
        for index in range(first, end):
            x = self._layers[index - self.start](
                x, position_ids=positions, position_embeddings=rotary, attention_mask=None, step=layout
            )
        return x
