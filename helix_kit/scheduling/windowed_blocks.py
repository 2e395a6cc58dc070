"""Records of `helix_kit.scheduling.windowed_pages`: blocks in two parts, and what a request has of them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

ALL, WITHOUT_WINDOW, WITH_WINDOW = 0, 1, 2
"""Parts of a block: its pages in all layers, in those without a window, and in those with one."""

EMPTY = np.zeros(0, dtype=np.int64)


def first_seen_block(position: int, window: int, page_tokens: int = 16) -> int:
    """The first block of a request that the token at a position sees.

    Parameters
    ----------
    position
        Of the token, from 0.
    window
        Number of last tokens that it sees, itself included.
    page_tokens
        Tokens of a block.

    Returns
    -------
    int
        Blocks before it are not needed from this position on.

    Examples
    --------
    >>> first_seen_block(40, window=8), first_seen_block(5, window=8)
    (2, 0)
    """
    return max(0, position - window + 1) // page_tokens


class Keep(NamedTuple):
    """Blocks [first, stop) of a request whose pages in layers with windows stay for others.

    Parameters
    ----------
    first
        Place of the first one in the request.
    stop
        Place after the last one.

    Examples
    --------
    >>> Keep(2, 5).size
    3
    """

    first: int
    stop: int

    @property
    def size(self) -> int:
        """How many blocks."""
        return max(0, self.stop - self.first)


NOTHING = Keep(0, 0)
"""No block."""


@dataclass(slots=True, eq=False)
class Block:
    """A block that others may use.

    Examples
    --------
    >>> Block(7, Span(0, 2, without=1, windowed=1), owner=(1, 0, 0), has_window=True).users
    1
    """

    number: int
    """Stands for its content."""
    span: Span
    """The layers that it was computed for."""
    owner: tuple[int, int, int]
    """Request, epoch, and place of the block there."""
    has_window: bool
    """Whether its pages in layers with windows are there."""
    users: int = 1
    """Requests that begin with it, or computed it."""
    window_users: int = 0
    """Requests whose window it is in."""
    idle_since: int = 0
    """The moment at which its last user left."""
    window_idle_since: int = 0
    """The moment at which it left the last window."""


@dataclass(slots=True, eq=False)
class Span:
    """The blocks that were computed for layers [start, end).

    Examples
    --------
    >>> Span(0, 6, without=3, windowed=3).blocks
    {}
    """

    start: int
    end: int
    without: int
    """Layers without a window."""
    windowed: int
    """Layers with one."""
    blocks: dict[int, Block] = field(default_factory=dict)
    """By number."""


@dataclass(slots=True, eq=False)
class WindowedHold:
    """The pages of one request on one worker.

    Examples
    --------
    >>> WindowedHold(0, 2, tokens=40, hits=0, keep=NOTHING).private
    0
    """

    start: int
    end: int
    tokens: int
    """Tokens of its context for which it is promised pages."""
    hits: int
    """Blocks that it found at the start."""
    keep: Keep
    """Blocks of its own whose pages in layers with windows it keeps for others."""
    private: int = 0
    """Pages promised to it for tokens that no other request can use."""
    blocks: list[Block] = field(default_factory=list)
    """Those that it uses and that others may use, too."""
    window: deque[tuple[int, Block]] = field(default_factory=deque)
    """Place and block of those of `blocks` that are in its window."""
    branch: Keep = NOTHING
    """The last window of what others have computed of its prompt, too: further requests may well begin after it."""
    pinned: list[Block] = field(default_factory=list)
    """Those of `blocks` whose second parts stay in use until it ends, because other requests begin after them."""
    known: int = 0
    """Blocks of its own that it has made known."""
    kept_alone: int = 0
    """Blocks of its own within `keep` that another request had made known before."""
    is_computed: bool = False
    """Whether its prompt has been computed."""
    shared: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), dtype=np.int64))
    """Owner of each block that was found at the start."""
    own: np.ndarray = field(default_factory=lambda: EMPTY)
    """Places of the blocks that the request itself has made known."""
    without_window: np.ndarray = field(default_factory=lambda: EMPTY)
    """Places among `own`, when the request leaves, whose pages in layers with windows are not kept."""
