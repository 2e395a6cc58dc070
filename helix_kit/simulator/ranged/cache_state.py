"""Arrays of the prefix caches of all nodes, which compiled rules read and write.

A block has a number, and a *place* in each request that contains it: the block of its first tokens has place 0. A
*span* is a range of layers of a node for which blocks are computed. For each span and block there is a cell: 0 where
the span does not hold the block, n > 0 while n requests use it, and -m while it has been idle since moment m of the
node. Cells lie in leaves of `LEAF` blocks, and a table says which leaf has a span's cells. So nothing is stored for
blocks that a span has never held, and leaves of which no block is held any more are used again.

Chains go through `next` fields, which are `NONE` at the end.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# Compiled code: numba infers the types.
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from helix_kit.simulator.compiled import inlined

LEAF_BITS = 8
LEAF = 1 << LEAF_BITS
"""Blocks of a leaf."""
CELL = LEAF - 1
"""The bits of a block's number that say which cell of its leaf is its own."""

CACHE = np.dtype(
    [
        ("capacity", "i8"),
        ("free", "i8"),
        ("private", "i8"),
        ("held", "i8"),
        ("idle", "i8"),
        ("moment", "i8"),
        ("losses", "i8"),
        ("first_span", "i8"),
        ("last_span", "i8"),
        ("first_entry", "i8"),
        ("last_entry", "i8"),
    ]
)
"""The pages of one node. `private` ones are promised to requests for tokens of their own, `held` ones have blocks that
can be found, of which no request uses the `idle` ones, and `free` ones can be promised. `moment` counts the requests
that have left, `losses` how often the node has lost its cache. The spans are in the order of their first block, the
entries of idle blocks in the order in which they go."""
SPAN = np.dtype(
    [
        ("cache", "i8"),
        ("start", "i8"),
        ("end", "i8"),
        ("layers", "i8"),
        ("listed", "i8"),
        ("next", "i8"),
        ("hits", "i8"),
        ("left_first", "i8"),
        ("left_end", "i8"),
    ]
)
"""Layers [start, end) of a node. It is `listed` among the node's spans from its first block on. `hits` are the leading
blocks of a request that it finds. `left_first` and `left_end` are scratch: places of the blocks that become idle."""
HOLD = np.dtype(
    [
        ("span", "i8"),
        ("losses", "i8"),
        ("private", "i8"),
        ("first", "i8"),
        ("first_run", "i8"),
        ("last_run", "i8"),
        ("next", "i8"),
    ]
)
"""The pages of one request on one node. It counts while the node has the same number of `losses`. Blocks before place
`first` need not be looked at again when the request has computed more."""
RUN = np.dtype([("span", "i8"), ("first", "i8"), ("end", "i8"), ("next", "i8")])
"""Places [first, end) of a request whose blocks it uses in a span."""
ENTRY = np.dtype([("span", "i8"), ("request", "i8"), ("moment", "i8"), ("first", "i8"), ("end", "i8"), ("next", "i8")])
"""Blocks that a request left idle: those at its places [first, end) whose cell still says so. The last goes first."""
CONTENT = np.dtype([("first_key", "i8"), ("keys", "i8"), ("own", "i8"), ("holds", "i8")])
"""A request of the workload. Its first `keys` blocks have the numbers `numbers[first_key:]`, because the workload names
their content; the others have own + place, numbers that no other request has. `holds` is its first hold."""
POOLS = np.dtype(
    [
        ("free_leaf", "i8"),
        ("free_leaves", "i8"),
        ("free_hold", "i8"),
        ("free_holds", "i8"),
        ("free_run", "i8"),
        ("free_runs", "i8"),
        ("free_entry", "i8"),
        ("free_entries", "i8"),
    ]
)
"""For each kind of record the first free one, and how many there are."""


class CacheState(NamedTuple):
    """Everything that the compiled rules of prefix caches read and write."""

    caches: np.ndarray
    """A `CACHE` for each node."""
    spans: np.ndarray
    holds: np.ndarray
    runs: np.ndarray
    entries: np.ndarray
    contents: np.ndarray
    """A `CONTENT` for each request."""
    numbers: np.ndarray
    """Numbers of the blocks whose content is named, request by request."""
    table: np.ndarray
    """Leaf of each span's blocks, shape (spans, leaves); 0 where the span holds none of them."""
    cells: np.ndarray
    """Shape (leaves, LEAF). Leaf 0 is empty and never written."""
    leaves: np.ndarray
    """Shape (leaves, 2): blocks that are held in the leaf, and the next free leaf."""
    pools: np.void


@inlined
def unpacked(plain):
    """The state of a plain tuple from `helix_kit.simulator.state.StateOwner`."""
    caches, spans, holds, runs, entries, contents, numbers, table, cells, leaves, pools = plain
    return CacheState(caches, spans, holds, runs, entries, contents, numbers, table, cells, leaves, pools)
