"""The blocks that prefix caches hold, in compiled code: finding them, holding more, and evicting idle ones.

`helix_kit.simulator.ranged.cache_rules` says what a request does with them. In the functions `at` is the number of a
request, `place` that of a block in it, `block` the block's own number, and `span` that of a span.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# Compiled code: numba infers the types.
from __future__ import annotations

from helix_kit.simulator.compiled import compiled, inlined
from helix_kit.simulator.ranged.cache_state import CELL, LEAF, LEAF_BITS


@inlined
def block_at(state, at, place):
    """Number of the request's block at a place."""
    content = state.contents[at]
    return state.numbers[content.first_key + place] if place < content.keys else content.own + place


@compiled
def count_alike(state, at, place, end):
    """How many blocks from `place` on, before `end`, have numbers that follow each other and cells in one leaf."""
    content = state.contents[at]
    block = block_at(state, at, place)
    most = min(end - place, LEAF - (block & CELL))
    if place >= content.keys:
        return most
    most = min(most, content.keys - place)
    first = content.first_key + place
    if state.numbers[first + most - 1] == block + most - 1:  # a request's numbers only go up
        return most
    count = 1
    while state.numbers[first + count] == block + count:
        count += 1
    return count


@compiled
def count_alike_before(state, at, end, first):
    """As `count_alike`, for the last blocks before `end`, back to place `first`."""
    content = state.contents[at]
    block = block_at(state, at, end - 1)
    most = min(end - first, (block & CELL) + 1)
    if end > content.keys:
        return min(most, end - content.keys)
    last = content.first_key + end - 1
    if state.numbers[last - most + 1] == block - most + 1:
        return most
    count = 1
    while state.numbers[last - count] == block - count:
        count += 1
    return count


@compiled
def find_held(state, span, at, place, end):
    """The first span of the node that holds the request's block at `place` in all layers of `span`, -1 for none.

    And for how many blocks from there on, before `end`, the same is known to be true.
    """
    spans, cells, table = state.spans, state.cells, state.table
    wanted = spans[span]
    block = block_at(state, at, place)
    there, is_first = state.caches[wanted.cache].first_span, True
    while there >= 0:
        if spans[there].start <= wanted.start and spans[there].end >= wanted.end:
            leaf, cell = table[there, block >> LEAF_BITS], block & CELL
            if cells[leaf, cell] != 0:
                count = 1
                if is_first:
                    most = count_alike(state, at, place, end)
                    while count < most and cells[leaf, cell + count] != 0:
                        count += 1
                return there, count
            is_first = False
        there = spans[there].next
    return -1, 0


@compiled
def count_new(state, span, at, place, end):
    """How many blocks from `place` on, before `end`, no span of the node holds in all layers of `span`.

    Only blocks with numbers that follow each other, and cells in one leaf, are looked at.
    """
    spans, cells, table = state.spans, state.cells, state.table
    wanted = spans[span]
    block = block_at(state, at, place)
    count = count_alike(state, at, place, end)
    there = state.caches[wanted.cache].first_span
    while there >= 0:
        if spans[there].start <= wanted.start and spans[there].end >= wanted.end:
            leaf, cell, absent = table[there, block >> LEAF_BITS], block & CELL, 0
            if leaf > 0:
                while absent < count and cells[leaf, cell + absent] == 0:
                    absent += 1
                count = absent
        there = spans[there].next
    return count


@compiled
def count_hits(state, span, at, most):
    """How many of the request's first `most` blocks are held in all layers of the span."""
    place = 0
    while place < most:
        there, count = find_held(state, span, at, place, most)
        if there < 0:
            break
        place += count
    return place


@inlined
def count_free(cache):
    """Note how many pages of the node can be promised."""
    cache.free = cache.capacity - cache.private - cache.held + cache.idle


@inlined
def free_leaf(state, leaf):
    """A leaf whose cells are all 0 can be used again."""
    state.leaves[leaf, 1] = state.pools.free_leaf
    state.pools.free_leaf = leaf
    state.pools.free_leaves += 1


@compiled
def hold_blocks(state, span, block, count):
    """The span holds `count` blocks of one leaf that it did not hold; one request uses them."""
    leaf = state.table[span, block >> LEAF_BITS]
    if leaf == 0:
        leaf = state.pools.free_leaf
        state.pools.free_leaf = state.leaves[leaf, 1]
        state.pools.free_leaves -= 1
        state.table[span, block >> LEAF_BITS] = leaf
    state.leaves[leaf, 0] += count
    for cell in range(block & CELL, (block & CELL) + count):
        state.cells[leaf, cell] = 1


@compiled
def use_blocks(state, hold, span, place, count):
    """Add blocks to the last run of a hold, or to a new one."""
    runs, pools = state.runs, state.pools
    last = hold.last_run
    if last >= 0 and runs[last].span == span and runs[last].end == place:
        runs[last].end += count
        return
    taken = pools.free_run
    pools.free_run = runs[taken].next
    pools.free_runs -= 1
    run = runs[taken]
    run.span, run.first, run.end, run.next = span, place, place + count, -1
    if last < 0:
        hold.first_run = taken
    else:
        runs[last].next = taken
    hold.last_run = taken


@compiled
def evict(state, cache):
    """Make the pages free that are promised, but belong to idle blocks: those that have been idle longest."""
    entries, pools = state.entries, state.pools
    excess = cache.private + cache.held - cache.capacity
    while excess > 0:
        first = cache.first_entry
        entry = entries[first]
        layers = state.spans[entry.span].layers
        while excess > 0 and entry.end > entry.first:
            gone = evict_alike(state, entry, -(-excess // layers))
            cache.held -= gone * layers
            cache.idle -= gone * layers
            excess -= gone * layers
        if entry.end == entry.first:
            cache.first_entry = entry.next
            if entry.next < 0:
                cache.last_entry = -1
            entry.next = pools.free_entry
            pools.free_entry = first
            pools.free_entries += 1


@compiled
def evict_alike(state, entry, most):
    """Evict at most `most` of an entry's last blocks, those in one leaf that are still idle; returns their number."""
    table, cells, leaves = state.table, state.cells, state.leaves
    count = count_alike_before(state, entry.request, entry.end, entry.first)
    block = block_at(state, entry.request, entry.end - 1)
    leaf, cell = table[entry.span, block >> LEAF_BITS], block & CELL
    if leaf == 0:
        entry.end -= count
        return 0
    gone, looked = 0, 0
    while looked < count and gone < most:
        if cells[leaf, cell - looked] == -entry.moment:
            cells[leaf, cell - looked] = 0
            gone += 1
        looked += 1
    entry.end -= looked
    leaves[leaf, 0] -= gone
    if gone > 0 and leaves[leaf, 0] == 0:
        table[entry.span, block >> LEAF_BITS] = 0
        free_leaf(state, leaf)
    return gone
