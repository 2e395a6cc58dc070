"""Two workers' layers in a chain, run on mixed batches, and the logits of transformers to compare theirs with."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from helix_kit.runtime.weights.checkpoint import Checkpoint
from helix_kit.runtime.worker.kv_cache import BlockTable, PagePool
from helix_kit.runtime.worker.model_layers import ModelLayers, RequestRows

TOLERANCE = 1e-4
LoadLayers = Callable[[Checkpoint, int, int], ModelLayers]


class Chain:
    """Two workers with overlapping layer ranges. A request passes from the first to the second after layer `cut`."""

    def __init__(self, folder: Path, load: LoadLayers = ModelLayers) -> None:
        checkpoint = Checkpoint(folder)
        self.first, self.second = load(checkpoint, 0, 4), load(checkpoint, 2, 6)
        self.pools: list[PagePool] = [self.first.new_pool(400), self.second.new_pool(400)]
        self.tables: dict[int, tuple[BlockTable, BlockTable]] = {}
        self.cuts: dict[int, int] = {}
        self.rotary_tokens: dict[int, int] = {}
        """Request -> length that its rotary frequencies are for, at least, where they depend on it."""

    def step(self, work: list[tuple[int, int, torch.Tensor]]) -> dict[int, torch.Tensor]:
        """Run one step of (request, cut, token ids); logits of all its rows by request."""
        rows = []
        for request, cut, ids in work:
            self.cuts[request] = cut
            low, high = self.tables.setdefault(request, (BlockTable(cut), BlockTable(6 - cut)))
            position = low.num_tokens
            low.grow(self.pools[0], len(ids))
            high.grow(self.pools[1], len(ids))
            rows.append((low, high, position, cut, ids, {"rotary_tokens": self.rotary_tokens.get(request, 0)}))
        middle = self.first.run(
            self.pools[0],
            [RequestRows(low, self.first.embed(ids), at, 0, cut, **more) for low, _, at, cut, ids, more in rows],
        )
        ends = self.second.run(
            self.pools[1],
            [RequestRows(high, h, at, cut, 6, **more) for h, (_, high, at, cut, _, more) in zip(middle, rows)],
        )
        with torch.inference_mode():
            return {request: self.second.logits(end) for (request, _, _), end in zip(work, ends)}


@functools.lru_cache(maxsize=1)
def reference(folder: Path) -> Any:
    """The whole model by transformers' own code, with its own attention."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def unused_reference(folder: Path) -> Any:
    """A copy that has not computed anything yet: rotary embeddings of type `dynamic` remember the longest sequence."""
    return copy.deepcopy(reference(folder))


def whole_model(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    """Logits of all rows."""
    with torch.inference_mode():
        return unused_reference(folder)(ids[None]).logits[0]


def run_mixed(
    folder: Path, theirs: Path | None = None, load: LoadLayers = ModelLayers
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Three requests with different cuts: chunked prefill beside decode, joins in the middle; (ours, theirs).

    `theirs` is the folder that transformers reads, if another one; `load` makes the layers of a worker.
    """
    generator = torch.Generator().manual_seed(1)
    texts = [torch.randint(3, 250, (n,), generator=generator) for n in (41, 23, 18)]
    chain = Chain(folder, load)
    chain.rotary_tokens = {request: len(text) for request, text in enumerate(texts)}
    got: list[list[torch.Tensor]] = [[], [], []]
    schedule = [
        [(0, 3, slice(0, 19))],
        [(0, 3, slice(19, 33)), (1, 2, slice(0, 16))],
        [(0, 3, slice(33, 34)), (1, 2, slice(16, 21)), (2, 4, slice(0, 17))],
        *([(0, 3, slice(34 + i, 35 + i)), (1, 2, slice(21 + i, 22 + i))] for i in range(2)),
        [(2, 4, slice(17, 18)), (0, 3, slice(36, 41))],
    ]
    for step in schedule:
        for request, logits in chain.step([(r, cut, texts[r][part]) for r, cut, part in step]).items():
            got[request].append(logits)
    return [(torch.cat(rows), whole_model(theirs or folder, text)) for rows, text in zip(got, texts)]
