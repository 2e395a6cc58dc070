"""Layers that stand in for a model whose speed is declared: full depth, real pages, next to no arithmetic.

An emulated worker waits for the time that its profile gives. Real layers, however narrow, cost half a millisecond of
a CPU each, so that two cores could not carry the workers of a whole cluster. These layers cost microseconds, and yet a
wrong route, a lost page or a layer that runs twice changes the answer:

- a row carries its token's number x and a sum a;
- layer l keeps for each token p the key k(l, p) = k(l, p-1) + x(p) + l + 1, in a page of its own, and adds
  (l mod 3 + 1) k(l, p) to a; all of it modulo 4096;
- the next token is (a + 7 x) mod 61 + 3.

So a token depends on all tokens before it and on every layer, each once. `answer` computes the same without workers.

>>> answer([5, 6, 7], num_layers=4, new_tokens=3)
[49, 33, 48]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS, PagePool

if TYPE_CHECKING:
    from helix_kit.runtime.weights.checkpoint import Checkpoint
    from helix_kit.runtime.worker.model_layers import LayerSegment, RequestRows

MODULUS = 4096
FIRST_TOKEN, TOKENS = 3, 61
"""Answers are tokens from 3 to 63: the vocabulary without the special tokens."""
_X, _A = 0, 1
"""Columns of a row: the token's number, and the sum."""


def answer(prompt: Sequence[int], *, num_layers: int, new_tokens: int) -> list[int]:
    """The tokens that stand-in layers generate after a prompt.

    Parameters
    ----------
    prompt
        Token ids.
    num_layers
        Layers of the model.
    new_tokens
        How many tokens to generate.

    Returns
    -------
    list of int
        The answer of any pipeline that runs each layer once.

    Examples
    --------
    >>> answer([5], num_layers=1, new_tokens=1)
    [44]
    """
    keys, rows = [0] * num_layers, list(prompt)
    found: list[int] = []
    while len(found) < new_tokens:
        for x in rows:
            keys = [key + x + layer + 1 for layer, key in enumerate(keys)]
        total = sum((layer % 3 + 1) * key for layer, key in enumerate(keys)) % MODULUS
        rows = [(total + 7 * rows[-1]) % TOKENS + FIRST_TOKEN]
        found += rows
    return found


class StandInLayers:
    """Stand-ins for the layers [start, end) of a checkpoint, with the calls of `ModelLayers`; its weights are not read.

    Parameters
    ----------
    checkpoint
        Says how many layers the model has, how wide a row is, and how large the vocabulary.
    start, end
        The layers of this worker.
    """

    description = "stand-in layers"
    dtype = torch.float32
    page_bytes = 2 * PAGE_TOKENS * 4
    windows: tuple[int, ...] = ()
    """The layers see every token before."""

    def __init__(self, checkpoint: Checkpoint, start: int, end: int) -> None:
        self.start, self.end = start, end
        self.device = torch.device("cpu")
        self.num_layers = int(checkpoint.config["num_hidden_layers"])
        self.hidden_size = int(checkpoint.config["hidden_size"])
        self._vocabulary = int(checkpoint.config["vocab_size"])

    def new_pool(self, num_pages: int) -> PagePool:
        """A pool of pages that hold one number for each token."""
        return PagePool(num_pages, 1, 1, self.dtype, self.device, clear=False)

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Rows (tokens, hidden size) of token ids (tokens,)."""
        rows = torch.zeros(len(token_ids), self.hidden_size)
        rows[:, _X] = token_ids
        return rows

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores (rows, vocabulary): 1 for the next token, 0 for the others."""
        rows = hidden.numpy()
        tokens = (rows[:, _A].astype(np.int64) + 7 * rows[:, _X].astype(np.int64)) % TOKENS + FIRST_TOKEN
        scores = np.zeros((len(rows), self._vocabulary), dtype=np.float32)
        scores[np.arange(len(rows)), tokens] = 1
        return torch.from_numpy(scores)

    def run(
        self, pool: PagePool, batch: Sequence[RequestRows], segments: Sequence[LayerSegment] | None = None
    ) -> list[torch.Tensor]:
        """Rows of each request after its last layer here; as `ModelLayers.run`."""
        keys = pool.keys.view(-1).numpy()
        decodes: dict[tuple[int, int], list[int]] = {}
        hidden = [rows.hidden for rows in batch]
        for index, rows in enumerate(batch):
            if rows.tokens == 1:
                decodes.setdefault((rows.start, rows.end), []).append(index)
            else:
                hidden[index] = _run_chunk(keys, rows)
        # Requests that decode in the same layers are computed together.
        for indices in decodes.values():
            done = _run_decodes(keys, [batch[i] for i in indices])
            for index, row in zip(indices, done.split(1)):
                hidden[index] = row
        return hidden


def _weights(start: int, end: int) -> np.ndarray:
    return np.arange(start, end) % 3 + 1.0


def _run_chunk(keys: np.ndarray, rows: RequestRows) -> torch.Tensor:
    """The rows of one request after its layers; their keys are kept in `keys`, by slot."""
    layers = np.arange(rows.start, rows.end)
    given = rows.hidden.numpy()
    # In float64, whole numbers are exact far beyond any sum of a chunk.
    new = np.cumsum(given[:, _X], dtype=np.float64) + np.outer(layers + 1, np.arange(1, rows.tokens + 1))
    if rows.position:
        new += keys[rows.table.slots(rows.position - 1, rows.position)]
    new %= MODULUS
    keys[rows.table.slots(rows.position, rows.position + rows.tokens)] = new
    out = np.array(given)
    out[:, _A] = (out[:, _A] + _weights(rows.start, rows.end) @ new) % MODULUS
    return torch.from_numpy(out)


def _run_decodes(keys: np.ndarray, batch: Sequence[RequestRows]) -> torch.Tensor:
    """One row of each request after their layers, which are the same for all of them."""
    start, end = batch[0].start, batch[0].end
    position = np.array([rows.position for rows in batch])
    before = np.maximum(position - 1, 0)
    pages = np.stack([rows.table.pages[:, rows.position // PAGE_TOKENS] for rows in batch], axis=1)
    pages_before = np.stack([rows.table.pages[:, max(0, rows.position - 1) // PAGE_TOKENS] for rows in batch], axis=1)
    out = torch.cat([rows.hidden for rows in batch]).numpy()
    new = np.where(position > 0, keys[pages_before * PAGE_TOKENS + before % PAGE_TOKENS], 0.0)
    new = (new + out[:, _X] + np.arange(start + 1, end + 1)[:, None]) % MODULUS
    keys[pages * PAGE_TOKENS + position % PAGE_TOKENS] = new
    out[:, _A] = (out[:, _A] + _weights(start, end) @ new) % MODULUS
    return torch.from_numpy(out)
