"""The layers [start, end) of a model, run on ragged batches. Nothing else of the model is loaded.

The model's own Hugging Face code is built without memory (on the meta device). The layers of the range keep their index
in the model and get their weights from the checkpoint; the other layers are dropped. The first range also holds the
embedding, the last one the final norm and the output projection.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch

from helix_kit.errors import InputError
from helix_kit.runtime.spec import check_dtype
from helix_kit.runtime.weights.checkpoint import Checkpoint
from helix_kit.runtime.weights.families import LAYER_NAMES
from helix_kit.runtime.weights.shares import LayerShare
from helix_kit.runtime.worker import attention, cpu_linear
from helix_kit.runtime.worker.attention import AttentionSettings, StepLayout
from helix_kit.runtime.worker.attention_choice import (
    ChosenAttention,
    check_deterministic,
    choose_attention,
    kernels_for,
)
from helix_kit.runtime.worker.fused_layers import FusedLayer, can_fuse, fused_layer, run_fused_layers
from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS, BlockTable, PagedRows, PagePool
from helix_kit.runtime.worker.low_bit_linear import place_low_bit, product_names
from helix_kit.runtime.worker.model_ends import finish_logits, in_equal_parts, scale_embeddings
from helix_kit.runtime.worker.rank_group import RankGroup
from helix_kit.runtime.worker.rank_shares import add_up_results, share_of
from helix_kit.runtime.worker.rotary import Rotary, Tables
from helix_kit.runtime.worker.static_batch import HeadShape, StaticBatch, max_pages_of
from helix_kit.runtime.worker.static_step import StaticStep, StepOptions
from helix_kit.runtime.worker.transfer import to_device

DEFAULT_OPTIONS = StepOptions()


@dataclass(slots=True)
class RequestRows:
    """Rows of one request in a step: `hidden` (tokens, hidden size) from `position` on, for layers [start, end)."""

    table: BlockTable
    hidden: torch.Tensor
    position: int
    start: int
    end: int
    rotary_tokens: int = field(default=0, kw_only=True)
    """Tokens of the sequence that the rows' rotary frequencies are for, at least, where they depend on its length."""

    @property
    def tokens(self) -> int:
        """Number of rows."""
        return len(self.hidden)


class LayerSegment(NamedTuple):
    """Layers [start, end) of a step, all of which the same requests pass through."""

    start: int
    end: int
    requests: list[int]
    """Indices of these requests in the step."""


def layer_segments(ranges: Sequence[tuple[int, int]]) -> list[LayerSegment]:
    """Split overlapping layer ranges [start, end) at every boundary.

    >>> layer_segments([(0, 8), (4, 8)])
    [LayerSegment(start=0, end=4, requests=[0]), LayerSegment(start=4, end=8, requests=[0, 1])]
    """
    if ranges and ranges.count(ranges[0]) == len(ranges):  # the usual step
        return [LayerSegment(*ranges[0], list(range(len(ranges))))]
    boundaries = sorted({boundary for layer_range in ranges for boundary in layer_range})
    segments = []
    for start, end in itertools.pairwise(boundaries):
        requests = [i for i, (first, stop) in enumerate(ranges) if first <= start and end <= stop]
        if requests:
            segments.append(LayerSegment(start, end, requests))
    return segments


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
        options: StepOptions = DEFAULT_OPTIONS,
        group: RankGroup | None = None,
    ) -> None:
        """`group` are the ranks that compute the layers together; None: this process alone."""
        self.start, self.end, self.group = start, end, group
        self.dtype, self.device = getattr(torch, check_dtype(dtype)), torch.device(device)
        self._max_tokens = checkpoint.context_tokens
        self._static: tuple[PagePool, StaticStep] | None = None
        self._fused: list[FusedLayer] = []
        self._layers: list[torch.nn.Module] = []
        base, share = self._build(checkpoint)
        config = self._config
        self.num_layers: int = config.num_hidden_layers
        self.hidden_size: int = config.hidden_size
        self.num_kv_heads: int = config.num_key_value_heads
        self.head_dim: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._rotary = Rotary(config, type(base.rotary_emb), self.device)
        self._heads = HeadShape(config.num_attention_heads, self.num_kv_heads, self.head_dim)
        self._choose_kernels(base, attention_backend, options)
        self.windows: tuple[int, ...] = ()
        """Window of each layer in tokens, 0 for none; empty where none has one, and where ranks share the layers."""
        if group is None and getattr(config, "sliding_window", None):
            self.windows = tuple(self._settings_of(base, index).window or 0 for index in range(start, end))
        self._load_layers(checkpoint, base, share)
        self._load_ends(checkpoint, base)

    def _build(self, checkpoint: Checkpoint) -> tuple[Any, LayerShare | None]:
        """The model without its head, on the meta device, and this rank's share of each layer; reads `_config`."""
        from transformers import AutoConfig, AutoModelForCausalLM

        implementation = attention.register()
        try:
            config = self._config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)
            share = None if self.group is None else share_of(config, self.group.rank, self.group.size)
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(
                    config, attn_implementation=implementation, dtype=self.dtype, trust_remote_code=False
                )
        except Exception as error:  # whatever a field of another type, or with an unknown name, leads to
            told = " ".join(f"{type(error).__name__}: {error}".split())
            expected = f"transformers cannot build a model from it: {told}"
            raise InputError(expected, where=checkpoint.folder / "config.json") from error
        model.eval().requires_grad_(False)
        return model.model, share

    def _choose_kernels(self, base: Any, attention_backend: str, options: StepOptions) -> None:
        """Choose attention and kernels for what the layers of `base` ask for, and whether steps are captured."""
        changed = None
        if options.kernels or self.device.type != "cpu":  # a CPU computes what a layer asks for, whatever it is
            changed = self._settings_of(base, self.start).changed
        has_experts = LAYER_NAMES[self._config.model_type].experts is not None
        if options.deterministic:
            check_deterministic(has_experts=has_experts, has_ranks=self.group is not None)
        kernels = options.kernels
        if kernels is None or changed:
            self._chosen = choose_attention(
                attention_backend, self.dtype, self.device, head_dim=self.head_dim, changed=changed,
                deterministic=options.deterministic,
            )  # fmt: skip
            kernels = kernels_for(
                self._chosen, self.device, self.dtype, self._heads, deterministic=options.deterministic
            )
        else:
            self._chosen = ChosenAttention(kernels.attention.name)
        # Experts read on the host which of them the rows took, which a CUDA graph cannot hold.
        graphs = options.graphs and not has_experts
        self._kernels, self._options = kernels, replace(options, kernels=kernels, graphs=graphs)

    def _load_layers(self, checkpoint: Checkpoint, base: Any, share: LayerShare | None) -> None:
        """Read the weights of the range, into fused layers where the family allows it, else into those of `base`."""
        fuses = self._kernels is not None and can_fuse(self._config)
        for index in range(self.start, self.end):
            if share is None:
                tensors = checkpoint.read_layer(index, self.dtype, self.device)
            else:
                tensors = checkpoint.read_share(index, share, self.dtype, self.device)
            if fuses:
                add_up = None if self.group is None else self.group.add_up
                settings = self._settings_of(base, index)
                self._fused.append(fused_layer(index, tensors, settings, self._config.rms_norm_eps, add_up))
                continue
            layer = base.layers[index]
            layer.load_state_dict(place_low_bit(layer, tensors, self.dtype), strict=True, assign=True)
            if self._kernels is None:
                cpu_linear.replace_linear_layers(layer)
            if self.group is not None:
                add_up_results(layer, self.group)
            self._layers.append(layer)

    def _load_ends(self, checkpoint: Checkpoint, base: Any) -> None:
        """Read the embedding with the first layer, final norm and output projection with the last; rank 0 has them."""
        self._embedding: torch.Tensor | None = None
        self._norm: torch.nn.Module | None = None
        self._head: Callable[[torch.Tensor], torch.Tensor] | None = None
        if self.group is not None and self.group.rank != 0:
            return
        if self.start == 0:
            # On a CPU the embedding keeps the file's dtype: its rows are read from the mapped file, which takes no
            # memory.
            raw = None if self.device.type == "cpu" else self.dtype
            self._embedding = self._read(checkpoint, "model.embed_tokens.weight", raw)
        if self.end == self.num_layers:
            base.norm.load_state_dict(
                checkpoint.read_under("model.norm.", self.dtype, self.device), strict=True, assign=True
            )
            self._norm = base.norm
            self._head = self._make_head(checkpoint)

    def _settings_of(self, base: Any, index: int) -> AttentionSettings:
        """What a layer of `base`, the model on the meta device, asks of the attention."""
        row = torch.zeros(1, 1, self.hidden_size, dtype=self.dtype, device=self.device)
        [tables] = self._rotary.of(row, row.new_zeros((1, 1), dtype=torch.long), index, index + 1).values()
        return attention.settings_of(base.layers[index], self.hidden_size, tables)

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
    def uses_graphs(self) -> bool:
        """Whether steps run as CUDA graphs."""
        return self._options.graphs and self._kernels is not None and self.device.type == "cuda"

    @property
    def attention(self) -> str:
        """The name of the attention that is used."""
        return self._chosen.name

    @property
    def description(self) -> str:
        """How the layers are computed, and why the attention is this one, for people."""
        parts = [f"attention {self._chosen.name}" + (f" ({self._chosen.why})" if self._chosen.why else "")]
        parts.append("fused layers" if self._fused else "layers of transformers")
        if self.device.type == "cuda":
            without_chunks = self._kernels is not None and not self._kernels.attention.captures_chunks
            graphs = "CUDA graphs for decodes" if without_chunks else "CUDA graphs"
            parts.append(graphs if self.uses_graphs else "no CUDA graphs")
            parts += [f"few bits {name}" for name in product_names([*self._layers, *self._fused])]
        if self._options.deterministic:
            parts.append("deterministic")
        return ", ".join([*parts, str(self.dtype).removeprefix("torch.")])

    @property
    def page_bytes(self) -> int:
        """Bytes of keys and values in one page."""
        return 2 * PAGE_TOKENS * self.num_kv_heads * self.head_dim * self.dtype.itemsize

    def new_pool(self, num_pages: int) -> PagePool:
        """A page pool with this model's heads and dtype, on its device."""
        # The kernels of the static step read no token that is not there.
        clear = self._kernels is None
        return PagePool(num_pages, self.num_kv_heads, self.head_dim, self.dtype, self.device, clear=clear)

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Hidden states (tokens, hidden size) of `token_ids` (tokens,); only where the range starts at 0."""
        assert self._embedding is not None, "only the first layers have the embedding"
        rows = torch.nn.functional.embedding(token_ids.to(self.device), self._embedding).to(self.dtype)
        return scale_embeddings(self._config, rows)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores (rows, vocabulary) of the next token; only where the range ends at the last layer."""
        assert self._norm is not None and self._head is not None, "only the last layers have the output projection"
        if self._options.deterministic and len(hidden) != self._options.run_rows:
            return in_equal_parts(self.logits, hidden, self._options.run_rows)
        return finish_logits(self._config, self._head(self._norm(hidden)))

    @torch.inference_mode()
    def run(
        self, pool: PagePool, batch: Sequence[RequestRows], segments: Sequence[LayerSegment] | None = None
    ) -> list[torch.Tensor]:
        """Hidden states of each request after its last layer here, in the order of `batch`.

        The requests may cover different parts of the layer range. Their block tables must already have room for the
        rows (`BlockTable.grow`). `segments` are the `layer_segments` of `batch`, if the caller has computed them.
        """
        hidden = [rows.hidden for rows in batch]
        segments = segments or layer_segments([(rows.start, rows.end) for rows in batch])
        for segment in segments:
            present = [batch[i] for i in segment.requests]
            inputs = [hidden[i] for i in segment.requests]
            x = inputs[0] if len(inputs) == 1 else torch.cat(inputs)
            paged = [
                PagedRows(rows.table, segment.start - rows.start, rows.position, rows.tokens, rows.rotary_tokens)
                for rows in present
            ]
            if self._kernels is not None:
                x = self._static_step(pool).run(x, paged, segment.start, segment.end)
                x = x.clone() if len(segments) > 1 else x
                for i, rows in zip(segment.requests, x.split([rows.tokens for rows in present])):
                    hidden[i] = rows
                continue
            layout = attention.lay_out(pool, segment.start, segment.end - segment.start, paged)
            x = self._run_layers(x.unsqueeze(0), segment, present, layout)[0]
            for i, rows in zip(segment.requests, x.split([rows.tokens for rows in present])):
                hidden[i] = rows
        return hidden

    def _run_layers(
        self, x: torch.Tensor, segment: LayerSegment, present: Sequence[RequestRows], layout: StepLayout
    ) -> torch.Tensor:
        positions = torch.cat([torch.arange(rows.position, rows.position + rows.tokens) for rows in present])
        positions = to_device(positions, self.device).unsqueeze(0)
        lengths = None
        if self._rotary.depends_on_length:
            lengths = torch.cat([torch.full((rows.tokens,), rows.rotary_tokens) for rows in present])
            lengths = to_device(lengths, self.device).unsqueeze(0)
        rotary = self._rotary.of(x, positions, segment.start, segment.end, lengths)
        return self._run_modules(x, positions, rotary, (segment.start, segment.end), layout)

    def _run_modules(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        rotary: Tables,
        layers: tuple[int, int],
        step: StepLayout | StaticBatch,
    ) -> torch.Tensor:
        """Rows (1, rows, hidden size) after transformers' layers [start, end)."""
        for index in range(*layers):
            tables = rotary[self._rotary.types[index]]
            layer = self._layers[index - self.start]
            x = layer(x, position_ids=positions, position_embeddings=tables, attention_mask=None, step=step)
        return x

    def _static_step(self, pool: PagePool) -> StaticStep:
        if self._static is None or self._static[0] is not pool:
            step = StaticStep(
                self._run_static_layers,
                pool,
                (self.start, self.end),
                self._options,
                max_pages=max_pages_of(self._max_tokens, pool),
                hidden_size=self.hidden_size,
                block_rows=self._heads.block_rows,
            )
            self._static = (pool, step)
        return self._static[1]

    def _run_static_layers(self, hidden: torch.Tensor, batch: StaticBatch, start: int, end: int) -> torch.Tensor:
        positions, lengths = batch.positions.long().unsqueeze(0), batch.rotary_tokens.long().unsqueeze(0)
        if self._fused:
            [(cos, sin)] = self._rotary.of(hidden[:1].float(), positions, start, end, lengths).values()
            layers = self._fused[start - self.start : end - self.start]
            return run_fused_layers(layers, self._heads, hidden, (cos[0].contiguous(), sin[0].contiguous()), batch)
        x = hidden.unsqueeze(0)
        rotary = self._rotary.of(x, positions, start, end, lengths)
        return self._run_modules(x, positions, rotary, (start, end), batch)[0]

    @torch.inference_mode()
    def warm_up(
        self, pool: PagePool, max_decodes: int = 0, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> None:
        """Run one prefill and one decode, so that the first request does not wait for one-time set-up.

        A GPU loads its libraries then. FlashInfer compiles its kernels when they are first used, which takes minutes.
        With CUDA graphs, those of steps with up to `max_decodes` requests are captured; `progress` gets their number
        so far and in all.
        """
        table = BlockTable(self.end - self.start)
        for position, tokens in ((0, 2), (2, 1)):
            hidden = torch.zeros(tokens, self.hidden_size, dtype=self.dtype, device=self.device)
            table.grow(pool, tokens)
            [result] = self.run(pool, [RequestRows(table, hidden, position, self.start, self.end)])
            if self.end == self.num_layers:
                self.logits(result[-1:])
        table.release(pool)
        if self.uses_graphs and max_decodes:
            self._static_step(pool).warm_up(max_decodes, progress)
