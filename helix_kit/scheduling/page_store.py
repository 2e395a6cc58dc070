"""What `SharedKV` asks of the pages of a worker, whatever its layers are: `SharedPages` and `WindowedPages` answer.

Layers without windows hold the pages of a request until it ends. Layers with one return them sooner, so their store has
more to do when a request goes on. The calls are the same.
"""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, Protocol, TypeVar

import numpy as np

from helix_kit.scheduling.page_counts import Promised
from helix_kit.scheduling.windowed_blocks import EMPTY, Keep


class RequestPages(Promised, Protocol):
    """What a request has on a worker.

    Examples
    --------
    >>> from helix_kit.scheduling.shared_pages import SharedPages
    >>> pages: RequestPages = SharedPages(10).promise(40, 0, 2)
    >>> pages.private, pages.keep.size
    (6, 0)
    """

    shared: np.ndarray
    """Owner of each block that was found at the start: request, epoch and place of the block there."""
    own: np.ndarray
    """Places of the blocks that the request itself has made known."""
    keep: Keep
    """Blocks of its own whose pages in layers with windows the worker keeps for others."""
    without_window: np.ndarray
    """Places among `own`, when the request leaves, whose pages in layers with windows are not kept."""


Pages = TypeVar("Pages", bound=RequestPages)
"""A store's own record of a request."""


class PageStore(Protocol[Pages]):
    """The pages of one worker. `SharedPages` says more of each call.

    Examples
    --------
    >>> from helix_kit.scheduling.shared_pages import SharedPages
    >>> store: AnyStore = SharedPages(10)
    >>> store.has_windows, store.free
    (False, 10)
    """

    capacity: int
    """Pages of the worker."""
    has_windows: bool
    """Whether some of its layers have a sliding window."""

    @property
    def free(self) -> int:
        """Pages that can be promised."""

    @property
    def used(self) -> int:
        """Pages of requests; a page that several share counts once."""

    def find(self, blocks: np.ndarray, start: int, end: int) -> Sized:
        """Those of the leading `blocks` after which a request may begin in layers [start, end)."""

    def held_blocks(self) -> np.ndarray:
        """Number of each block that is held."""

    def has_room(self, tokens: int, start: int, end: int, blocks: np.ndarray = EMPTY) -> bool:
        """Whether a request of `tokens` fits into layers [start, end); it may begin with `blocks`."""

    def fits(self, tokens: int, start: int, end: int, blocks: np.ndarray) -> bool:
        """Whether a request that begins with `blocks`, all of which are held, can be promised its pages."""

    def holds_when_empty(self, tokens: int, start: int, end: int) -> bool:
        """Whether a request fits into layers [start, end) of the worker when it holds no other."""

    def promise(
        self,
        tokens: int,
        start: int,
        end: int,
        blocks: np.ndarray = EMPTY,
        *,
        keepable: int = 0,
        wanted: np.ndarray = EMPTY,
    ) -> Pages:
        """Promise a request its pages; it begins with `blocks`.

        Others could use `keepable` of its leading blocks; the leading ones that some request has computed are `wanted`.
        """

    def more_pages(self, hold: Pages, tokens: int) -> int:
        """Pages that a request of `tokens` in all needs beyond those that it has been promised."""

    def extend(self, hold: Pages, tokens: int) -> bool:
        """Promise a request pages for `tokens` in all; False, and nothing changed, where there are too few."""

    def evict(self, *, all_idle: bool = False) -> np.ndarray:
        """Make the pages free that are promised, but idle, or all idle ones. Returns the owners of their blocks."""

    def take_evicted(self) -> np.ndarray:
        """Numbers of the blocks that were evicted since the last call."""

    def add_blocks(self, hold: Pages, blocks: np.ndarray, owner: tuple[int, int]) -> np.ndarray:
        """The request has computed its first ``len(blocks)`` blocks. Returns the numbers of those that were unknown."""

    def advance(self, hold: Pages, position: int) -> None:
        """The request computes the token at `position` next."""

    def leave(self, hold: Pages) -> None:
        """The request no longer uses the blocks that it shares."""

    def release(self, hold: Pages) -> None:
        """The request's own pages are free."""


AnyStore = PageStore[Any]
"""A store of either kind. Each call passes what the same store has promised, so its records are its own."""
