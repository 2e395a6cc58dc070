"""Steps of several requests that any way of computing layers must agree on."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from helix_kit.runtime.worker.kv_cache import BlockTable
from helix_kit.runtime.worker.model_layers import ModelLayers, RequestRows

SPANS = [(0, 6), (2, 6), (0, 4), (0, 6), (1, 5)]
"""Layer ranges of the requests: two enter mid-range, two leave early."""
SCHEDULE = [
    [(0, 19), (1, 5)],
    [(0, 1), (1, 1), (2, 40)],
    [(0, 1), (1, 1), (2, 1), (3, 21)],
    [(0, 1), (1, 1), (2, 1), (3, 1)],
    [(0, 3), (4, 17), (1, 1)],
    [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)],
    [(3, 1), (1, 1)],
]
"""Steps of (request, rows): prefill in chunks beside decodes."""


def run_schedule(
    model: ModelLayers, schedule: list[list[tuple[int, int]]], pages: int = 600, rotary_tokens: Sequence[int] = ()
) -> list[torch.Tensor]:
    """Hidden states of all rows; `rotary_tokens` are those of the requests."""
    generator = torch.Generator().manual_seed(3)
    pool = model.new_pool(pages)
    tables = [BlockTable(end - start) for start, end in SPANS]
    results = []
    for step in schedule:
        batch = []
        for request, tokens in step:
            table = tables[request]
            if tokens == 0:  # the request starts again
                table.release(pool)
                continue
            position = table.num_tokens
            table.grow(pool, tokens)
            hidden = torch.randn(tokens, model.hidden_size, generator=generator)
            lengths = rotary_tokens[request] if rotary_tokens else 0
            batch.append(RequestRows(table, hidden, position, *SPANS[request], rotary_tokens=lengths))
        results += [rows.clone() for rows in model.run(pool, batch)]
    return results
