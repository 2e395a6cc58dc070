"""Prefix caches in compiled code: what a request finds, which pages it is promised, what it leaves, what is evicted.

The rules are those of our coordinator (`helix_kit.scheduling.SharedKV`), for all stages of a request in one call.
`helix_kit.simulator.ranged.cache_blocks` has what they do with single blocks.

Python calls `hits_of_spans`, `fits_with_hits`, `reserve`, `add_computed`, `leave` and `lose`, with the state as a plain
tuple. In the functions `at` is the number of a request, `place` that of a block in it, `block` the block's own number,
and `span` that of a span.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# Compiled code: numba infers the types.
from __future__ import annotations

from helix_kit.simulator.compiled import compiled
from helix_kit.simulator.ranged.cache_blocks import (
    block_at,
    count_alike,
    count_free,
    count_hits,
    count_new,
    evict,
    find_held,
    free_leaf,
    hold_blocks,
    use_blocks,
)
from helix_kit.simulator.ranged.cache_state import CELL, LEAF, LEAF_BITS, unpacked

NO_ROOM = -1
"""What `reserve` returns where a stage lacks pages."""


@compiled
def fits(state, span, at, pages, hits):
    """Whether a request of `pages` pages a layer fits, if its first `hits` blocks are held already."""
    own = state.spans[span]
    needed, place = (pages - hits) * own.layers, 0
    while place < hits:
        there, count = find_held(state, span, at, place, hits)
        block = block_at(state, at, place)
        leaf, cell, idle = state.table[there, block >> LEAF_BITS], block & CELL, 0
        for i in range(cell, cell + count):
            if state.cells[leaf, i] < 0:
                idle += 1
        needed += idle * state.spans[there].layers
        place += count
    return needed <= state.caches[own.cache].free


@compiled
def promise(state, span, at, pages, hits):
    """Promise the request its pages on a node, where it fits; it begins with the `hits` blocks that are held."""
    pools, spans = state.pools, state.spans
    cache = state.caches[spans[span].cache]
    taken = pools.free_hold
    hold = state.holds[taken]
    pools.free_hold = hold.next
    pools.free_holds -= 1
    hold.span, hold.losses, hold.first = span, cache.losses, hits
    hold.first_run = hold.last_run = -1
    hold.private = (pages - hits) * spans[span].layers
    hold.next = state.contents[at].holds
    state.contents[at].holds = taken
    place = 0
    while place < hits:
        there, count = find_held(state, span, at, place, hits)
        block = block_at(state, at, place)
        leaf, cell, idle = state.table[there, block >> LEAF_BITS], block & CELL, 0
        for i in range(cell, cell + count):
            users = state.cells[leaf, i]
            if users < 0:
                idle += 1
                users = 0
            state.cells[leaf, i] = users + 1
        cache.idle -= idle * spans[there].layers
        use_blocks(state, hold, there, place, count)
        place += count
    cache.private += hold.private
    evict(state, cache)
    count_free(cache)


@compiled
def hits_of_spans(plain, at, most):
    """Note for every span how many of the request's first `most` blocks it finds."""
    state = unpacked(plain)
    for span in range(len(state.spans)):
        if state.spans[span].layers > 0:
            state.spans[span].hits = count_hits(state, span, at, most)


@compiled
def fits_with_hits(plain, span, at, most, pages):
    """Whether the request fits into a span beside those of its first `most` blocks that the span finds."""
    state = unpacked(plain)
    hits = count_hits(state, span, at, most)
    return hits > 0 and fits(state, span, at, pages, hits)


@compiled
def reserve(plain, at, most, pages, stages):
    """Promise the request its pages on every span of `stages`, or on none: the blocks that it finds, or `NO_ROOM`.

    Of its first `most` blocks it finds those that all stages hold. Where blocks have more layers than the stage, it may
    fit only without them.
    """
    state = unpacked(plain)
    hits = most
    for stage in range(len(stages)):
        hits = count_hits(state, stages[stage], at, hits)
    while True:
        fit = True
        for stage in range(len(stages)):
            if fit and not fits(state, stages[stage], at, pages, hits):
                fit = False
        if fit:
            break
        if hits == 0:
            return NO_ROOM
        hits = 0
    for stage in range(len(stages)):
        promise(state, stages[stage], at, pages, hits)
    return hits


@compiled
def add_computed(plain, at, count):
    """The first `count` blocks of the request are computed on all its stages: others may use those that are new.

    Returns how many leaves lack. Then nothing has changed.
    """
    state = unpacked(plain)
    caches, spans, pools = state.caches, state.spans, state.pools
    needed, following = 0, state.contents[at].holds
    while following >= 0:
        hold = state.holds[following]
        if count > hold.first:
            place = hold.first
            while place < count:
                if state.table[hold.span, block_at(state, at, place) >> LEAF_BITS] == 0:
                    needed += 1
                place += count_alike(state, at, place, count)
        following = hold.next
    if needed > pools.free_leaves:
        return needed - pools.free_leaves
    following = state.contents[at].holds
    while following >= 0:
        hold = state.holds[following]
        following = hold.next
        span = hold.span
        cache = caches[spans[span].cache]
        if count <= hold.first or hold.losses != cache.losses:
            continue
        if not spans[span].listed:
            spans[span].listed, spans[span].next = 1, -1
            if cache.last_span < 0:
                cache.first_span = span
            else:
                spans[cache.last_span].next = span
            cache.last_span = span
        pages, place = 0, hold.first
        while place < count:
            there, known = find_held(state, span, at, place, count)
            if there < 0:
                new = count_new(state, span, at, place, count)
                hold_blocks(state, span, block_at(state, at, place), new)
                use_blocks(state, hold, span, place, new)
                pages += new * spans[span].layers
                place += new
            place += known
        hold.first = count
        hold.private -= pages
        cache.private -= pages
        cache.held += pages
    return 0


@compiled
def leave(plain, at):
    """The request leaves its pipeline: its own pages are free, what it shares becomes idle where no other uses it."""
    state = unpacked(plain)
    pools = state.pools
    following = state.contents[at].holds
    state.contents[at].holds = -1
    while following >= 0:
        number = following
        hold = state.holds[number]
        following = hold.next
        cache = state.caches[state.spans[hold.span].cache]
        if hold.losses == cache.losses:
            cache.moment += 1
            leave_blocks(state, hold, at, cache)
            cache.private -= hold.private
            count_free(cache)
        if hold.first_run >= 0:
            length, run = 1, hold.first_run
            while state.runs[run].next >= 0:
                run = state.runs[run].next
                length += 1
            state.runs[run].next = pools.free_run
            pools.free_run = hold.first_run
            pools.free_runs += length
        hold.next = pools.free_hold
        pools.free_hold = number
        pools.free_holds += 1


@compiled
def leave_blocks(state, hold, at, cache):
    """The blocks of a hold have one user less; those that have none get in line, span by span."""
    runs, spans, entries, pools = state.runs, state.spans, state.entries, state.pools
    following = hold.first_run
    while following >= 0:
        run = runs[following]
        span = spans[run.span]
        place = run.first
        while place < run.end:
            block = block_at(state, at, place)
            count = count_alike(state, at, place, run.end)
            leaf, cell, idle = state.table[run.span, block >> LEAF_BITS], block & CELL, 0
            for i in range(cell, cell + count):
                users = state.cells[leaf, i] - 1
                if users == 0:
                    idle += 1
                    users = -cache.moment
                state.cells[leaf, i] = users
            if idle > 0:
                cache.idle += idle * span.layers
                if span.left_end == 0:
                    span.left_first = place
                span.left_end = place + count
            place += count
        following = run.next
    following = cache.first_span
    while following >= 0:
        span = spans[following]
        if span.left_end > 0:
            taken = pools.free_entry
            entry = entries[taken]
            pools.free_entry = entry.next
            pools.free_entries -= 1
            entry.span, entry.request, entry.moment = following, at, cache.moment
            entry.first, entry.end, entry.next = span.left_first, span.left_end, -1
            span.left_first = span.left_end = 0
            if cache.last_entry < 0:
                cache.first_entry = taken
            else:
                entries[cache.last_entry].next = taken
            cache.last_entry = taken
        following = span.next


@compiled
def lose(plain, number):
    """A node's cache is gone, with what requests hold there."""
    state = unpacked(plain)
    spans, entries, pools = state.spans, state.entries, state.pools
    cache = state.caches[number]
    following = cache.first_span
    while following >= 0:
        span = spans[following]
        for part in range(state.table.shape[1]):
            leaf = state.table[following, part]
            if leaf > 0:
                state.table[following, part] = 0
                for cell in range(LEAF):
                    state.cells[leaf, cell] = 0
                state.leaves[leaf, 0] = 0
                free_leaf(state, leaf)
        span.listed = 0
        following = span.next
    while cache.first_entry >= 0:
        first = cache.first_entry
        cache.first_entry = entries[first].next
        entries[first].next = pools.free_entry
        pools.free_entry = first
        pools.free_entries += 1
    cache.first_span = cache.last_span = cache.last_entry = -1
    cache.private = cache.held = cache.idle = 0
    cache.losses += 1
    cache.free = cache.capacity
