"""Keys and values of live requests in pages of 16 tokens of one layer.

A page belongs to one layer of one request, so the count is exact also when a request uses only a part of the
node's layers (partial inference), and a node's capacity in layer-tokens is its number of pages times 16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from helix_kit.errors import HelixKitError

if TYPE_CHECKING:
    import torch

PAGE_TOKENS = 16


class OutOfPagesError(HelixKitError):
    """More pages were asked for than are free: admission has miscounted, which is a defect of ours."""


def pages_for(tokens: int, num_layers: int) -> int:
    """Pages that `tokens` of one request take in `num_layers` layers."""
    return -(-tokens // PAGE_TOKENS) * num_layers


class PagePool:
    """All pages of one worker: `keys` and `values` of shape (pages + 1, 16, kv heads, head dim)."""

    def __init__(
        self, num_pages: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        # One page more than can be taken: it pads block tables, and stays zero.
        shape = (num_pages + 1, PAGE_TOKENS, num_kv_heads, head_dim)
        self.keys = _zeros(shape, dtype, device)
        self.values = _zeros(shape, dtype, device)
        self.num_pages = num_pages
        # Returned pages are used again before fresh ones, so that touched memory stays small.
        self._returned: list[int] = []
        self._fresh = 0
        """Pages from here on have never been used."""

    @property
    def used(self) -> int:
        """Pages held by requests."""
        return self._fresh - len(self._returned)

    def take(self, count: int) -> list[int]:
        """`count` free pages; raises OutOfPagesError and takes none when there are fewer."""
        free = self.num_pages - self.used
        if count > free:
            raise OutOfPagesError(f"{count} pages needed, {free} of {self.num_pages} free")
        again = min(count, len(self._returned))
        taken = self._returned[len(self._returned) - again :]
        del self._returned[len(self._returned) - again :]
        if taken:
            self._clear(taken)
        first, self._fresh = self._fresh, self._fresh + count - again
        return [*taken, *range(first, self._fresh)]

    def _clear(self, pages: list[int]) -> None:
        """Wipe what an earlier request left: attention multiplies what it must not see by 0, and 0 x NaN is NaN."""
        import torch

        index = torch.tensor(pages, dtype=torch.long, device=self.keys.device)
        self.keys.index_fill_(0, index, 0)
        self.values.index_fill_(0, index, 0)

    @property
    def padding_page(self) -> int:
        """A page of zeros that no request owns."""
        return self.num_pages

    def give_back(self, pages: list[int]) -> None:
        """Return pages to the pool."""
        self._returned.extend(pages)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros; on a CPU in memory that is only taken when it is first written."""
    import torch

    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    size = torch.empty(0, dtype=dtype).element_size()
    flat = torch.from_numpy(np.zeros(int(np.prod(shape)) * size, dtype=np.uint8))
    return flat.view(dtype).view(shape)


class BlockTable:
    """The pages of one request on one worker: `pages` of shape (layers, pages per layer), filled as it grows."""

    def __init__(self, num_layers: int) -> None:
        self.num_tokens = 0
        self.pages = np.empty((num_layers, 0), dtype=np.int64)

    def grow(self, pool: PagePool, tokens: int) -> None:
        """Make room for `tokens` more in every layer, and count them."""
        self.num_tokens += tokens
        num_layers, have = self.pages.shape
        more = -(-self.num_tokens // PAGE_TOKENS) - have
        if more > 0:
            new = np.array(pool.take(more * num_layers), dtype=np.int64).reshape(num_layers, more)
            self.pages = np.concatenate([self.pages, new], axis=1)

    def release(self, pool: PagePool) -> None:
        """Give all pages back."""
        pool.give_back(self.pages.ravel().tolist())
        self.pages = np.empty((len(self.pages), 0), dtype=np.int64)
        self.num_tokens = 0

    def slots(self, start: int, stop: int) -> np.ndarray:
        """Flat slot of each token in [start, stop) in every layer: shape (layers, stop - start)."""
        positions = np.arange(start, stop)
        return self.pages[:, positions // PAGE_TOKENS] * PAGE_TOKENS + positions % PAGE_TOKENS
