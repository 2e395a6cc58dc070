"""Keys and values of a worker's requests, in pages of 16 tokens of one layer.

A page belongs to one layer of one request. So the count is exact even if a request uses only a part of the worker's
layers (partial inference), and the capacity in layer-tokens is the number of pages times 16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from helix_kit.errors import HelixKitError
from helix_kit.scheduling.kv_budget import PAGE_TOKENS
from helix_kit.scheduling.windowed_blocks import first_seen_block

if TYPE_CHECKING:
    import torch


class OutOfPagesError(HelixKitError):
    """More pages were asked for than are free. The coordinator admits requests so that this never happens."""


def pages_for(tokens: int, num_layers: int) -> int:
    """Pages that `tokens` tokens of one request take in `num_layers` layers.

    >>> pages_for(tokens=17, num_layers=3)
    6
    """
    return -(-tokens // PAGE_TOKENS) * num_layers


class PagePool:
    """All pages of one worker, with the number of requests that use each.

    A page that is kept for later requests (`keep`) is not free when its last user returns it, until it is `drop`ped.

    `keys` and `values` have the shape (num_pages + 1, 16, kv heads, head dim). The last page is never given out; it
    stays zero and pads block tables (`padding_page`). Pages that are taken again are zero, too, unless `clear` is
    false: then the attention must not read behind a request's last token.

    Examples
    --------
    >>> import torch
    >>> pool = PagePool(4, num_kv_heads=1, head_dim=8, dtype=torch.float32, device=torch.device("cpu"))
    >>> table = BlockTable(num_layers=2)
    >>> table.grow(pool, tokens=5)
    >>> pool.used, table.pages.tolist()
    (2, [[0], [1]])
    >>> table.release(pool)
    >>> pool.used
    0
    """

    def __init__(
        self,
        num_pages: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
        *,
        clear: bool = True,
    ) -> None:
        shape = (num_pages + 1, PAGE_TOKENS, num_kv_heads, head_dim)
        self.keys = _zeros(shape, dtype, device)
        self.values = _zeros(shape, dtype, device)
        self.num_pages = num_pages
        self._clears = clear
        self.used = 0
        """Pages that requests use; one that several share counts once."""
        self._users = np.zeros(num_pages, dtype=np.int32)
        self._is_kept = np.zeros(num_pages, dtype=bool)
        self.on_clear: Callable[[list[int]], None] | None = None
        """Called with pages that are taken again, if they were set to zero."""
        # Returned pages are used again before new ones, so that little memory is ever written.
        self._returned: list[int] = []
        self._fresh = 0
        """Pages from this number on have never been used."""

    @property
    def free(self) -> int:
        """Pages that can be taken."""
        return self.num_pages - self._fresh + len(self._returned)

    @property
    def idle(self) -> int:
        """Pages that are kept and that no request uses."""
        return self.num_pages - self.free - self.used

    def take(self, count: int) -> list[int]:
        """Take `count` free pages. Raises OutOfPagesError, and takes none, if fewer are free."""
        if count > self.free:
            raise OutOfPagesError(f"{count} pages needed, {self.free} of {self.num_pages} free")
        again = min(count, len(self._returned))
        taken = self._returned[len(self._returned) - again :]
        del self._returned[len(self._returned) - again :]
        if taken and self._clears:
            self.clear(taken)
            if self.on_clear is not None:
                self.on_clear(taken)
        first, self._fresh = self._fresh, self._fresh + count - again
        taken = [*taken, *range(first, self._fresh)]
        self._users[taken] = 1
        self.used += count
        return taken

    def clear(self, pages: list[int]) -> None:
        """Set pages to zero: attention multiplies masked values by 0, and 0 x NaN of an earlier request is NaN."""
        import torch

        index = torch.tensor(pages, dtype=torch.long, device=self.keys.device)
        self.keys.index_fill_(0, index, 0)
        self.values.index_fill_(0, index, 0)

    @property
    def padding_page(self) -> int:
        """The page that no request owns."""
        return self.num_pages

    def share(self, pages: np.ndarray) -> None:
        """One more request uses each of these pages, which are in use or kept."""
        self.used += int((self._users[pages] == 0).sum())
        self._users[pages] += 1

    def give_back(self, pages: Sequence[int] | np.ndarray) -> None:
        """One request no longer uses these pages; those without users that are not kept are free."""
        index = np.asarray(pages, dtype=np.int64)
        self._users[index] -= 1
        unused = index[self._users[index] == 0]
        self.used -= len(unused)
        self._returned.extend(unused[~self._is_kept[unused]].tolist())

    def keep(self, pages: np.ndarray) -> None:
        """Keep pages in use for later requests: they are not free when they have no users."""
        self._is_kept[pages] = True

    def drop(self, pages: np.ndarray) -> None:
        """Keep pages no longer: those without users are free."""
        self._is_kept[pages] = False
        self._returned.extend(pages[self._users[pages] == 0].tolist())


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros. On a CPU the memory is only taken when it is first written, as `numpy.zeros` does it."""
    import torch

    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    size = torch.empty(0, dtype=dtype).element_size()
    flat = torch.from_numpy(np.zeros(int(np.prod(shape)) * size, dtype=np.uint8))
    return flat.view(dtype).view(shape)


class BlockTable:
    """The pages of one request on one worker: `pages` has the shape (layers, pages per layer).

    Parameters
    ----------
    num_layers
        Layers that the request passes here.
    windows
        Window of each of them in tokens, 0 for none; empty: there are none. Pages that no later token sees are returned
        by `trim`, and the padding page takes their place.
    keep
        Blocks [first, stop) whose pages are not returned by `trim`.
    """

    def __init__(self, num_layers: int, windows: Sequence[int] = (), keep: tuple[int, int] = (0, 0)) -> None:
        self.num_tokens = 0
        self._keep = range(*keep)
        self._passed = {window: 0 for window in windows if window}
        """Window -> blocks before this one have passed out of it."""
        self._layers = {window: np.flatnonzero(np.asarray(windows) == window) for window in self._passed}
        self.releases = 0
        """How often the pages were returned: pages that were known before are no longer the request's."""
        self.pages = np.empty((num_layers, 0), dtype=np.int64)

    def grow(self, pool: PagePool, tokens: int) -> None:
        """Add `tokens` to the request, and take the pages that they need in every layer."""
        self.num_tokens += tokens
        num_layers, have = self.pages.shape
        more = -(-self.num_tokens // PAGE_TOKENS) - have
        if more > 0:
            new = np.array(pool.take(more * num_layers), dtype=np.int64).reshape(num_layers, more)
            self.pages = np.concatenate([self.pages, new], axis=1)

    def trim(self, pool: PagePool) -> None:
        """Return the pages that no further token of the request sees."""
        for window, passed in self._passed.items():
            first = first_seen_block(self.num_tokens, window, PAGE_TOKENS)
            if first > passed:
                blocks = np.array([block for block in range(passed, first) if block not in self._keep], dtype=np.int64)
                self.give_back_part(pool, self._layers[window], blocks)
                self._passed[window] = first

    def give_back_part(self, pool: PagePool, layers: np.ndarray, blocks: np.ndarray) -> None:
        """Return the pages of some blocks in some layers."""
        place = np.ix_(layers, blocks)
        pages = self.pages[place]
        pool.give_back(pages[pages != pool.padding_page])
        self.pages[place] = pool.padding_page

    def release(self, pool: PagePool) -> None:
        """Return all pages to the pool."""
        pool.give_back(self.pages[self.pages != pool.padding_page])
        self.pages = np.empty((len(self.pages), 0), dtype=np.int64)
        self.num_tokens = 0
        self._passed = dict.fromkeys(self._passed, 0)
        self.releases += 1

    def begin_with(self, pages: np.ndarray) -> None:
        """Let the empty table begin with full pages of another request, shape (layers, pages per layer)."""
        self.pages, self.num_tokens = pages, pages.shape[1] * PAGE_TOKENS
        self._passed = {window: first_seen_block(self.num_tokens, window, PAGE_TOKENS) for window in self._passed}

    def pages_to_grow(self, tokens: int) -> int:
        """Pages that `grow` would take for `tokens`."""
        num_layers, have = self.pages.shape
        return max(0, -(-(self.num_tokens + tokens) // PAGE_TOKENS) - have) * num_layers

    def slots(self, start: int, stop: int) -> np.ndarray:
        """Slots (page x 16 + place in the page) of the tokens [start, stop): shape (layers, stop - start)."""
        positions = np.arange(start, stop)
        return self.pages[:, positions // PAGE_TOKENS] * PAGE_TOKENS + positions % PAGE_TOKENS


class PagedRows(NamedTuple):
    """Rows of one request in one segment of a step's layers, and where their keys and values lie."""

    table: BlockTable
    layer_offset: int
    """Index of the segment's first layer in `table`."""
    position: int
    """Position of the first row in the request."""
    tokens: int
    rotary_tokens: int = 0
    """Tokens of the sequence that the rotary frequencies are for, at least."""
