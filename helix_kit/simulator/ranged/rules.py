"""Our runtime's rules in compiled code: a step runs a whole layer range, prefill comes in chunks, messages in bundles.

A piece is a prefill chunk or one decode token on its way along its request's pipeline. A step takes decodes first, then
prefill chunks, within a budget of tokens and at most one piece of a request; pieces that enter in the middle of the
node's range take part from their first layer on. What a step leaves for one next hop travels as one message.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# Compiled code: numba infers the types.
from __future__ import annotations

from numba import njit

from helix_kit.simulator import events
from helix_kit.simulator.node import curve_at, end_step, keep_books
from helix_kit.simulator.ranged.messages import (
    SENT,
    START_STEP,
    STEP_DONE,
    append,
    drop_piece,
    is_stale,
    mail_all,
    post,
    sent,
    take_piece,
)

REACHED, DONE, TOKENS, FULL = range(4)
"""Why `advance` returned; DONE and TOKENS come with chains of requests in `finished` and `continued`."""


@njit(cache=True, inline="always")
def choose_step(state, node, here):
    """Move the pieces of the next step from the node's two queues to its batch."""
    queries, pieces, boxes, clock = state[2], state[4], state[6], state[7]
    node.step_id += 1
    node.batch_head, node.batch_tail, node.batch_prefill, node.batch_decodes = -1, -1, 0, 0
    budget = clock.step_tokens
    for phase in range(2):
        box = boxes[2 * here + phase]
        previous, at = -1, box.head
        while at >= 0 and budget > 0:
            piece = pieces[at]
            following = piece.next
            stale = is_stale(pieces, queries, at)
            takes = False
            if not stale:
                if phase == 0:
                    takes = node.batch_decodes < node.decode_max
                    if not takes:
                        break
                else:
                    fits = piece.tokens <= budget or node.batch_head < 0
                    takes = fits and queries[piece.query].step_id != node.step_id * len(boxes) + here
            if not stale and not takes:
                previous = at
                at = following
                continue
            if previous < 0:
                box.head = following
            else:
                pieces[previous].next = following
            if box.tail == at:
                box.tail = previous
            box.count -= 1
            if stale:
                drop_piece(pieces, clock, at)
            else:
                queries[piece.query].step_id = node.step_id * len(boxes) + here
                budget -= piece.tokens
                if phase == 0:
                    node.batch_decodes += 1
                else:
                    node.batch_prefill += piece.tokens
                piece.next = -1
                if node.batch_head < 0:
                    node.batch_head = at
                else:
                    pieces[node.batch_tail].next = at
                node.batch_tail = at
            at = following


@njit(cache=True, inline="always")
def step_seconds(state, node, curves):
    """Time of the batch: layer by layer, with the pieces that have entered by then."""
    pieces, clock, entering = state[4], state[7], state[9]
    for layer in range(node.layers):
        entering[layer, 0] = 0
        entering[layer, 1] = 0
    at = node.batch_head
    while at >= 0:
        piece = pieces[at]
        entering[piece.layer - node.start, piece.decode] += piece.tokens
        at = piece.next
    x, y, low, count = curves
    c = node.curve
    seconds, per_layer = 0.0, 0.0
    prefill, decodes = 0, 0
    for layer in range(node.layers):
        if entering[layer, 0] > 0 or entering[layer, 1] > 0:
            prefill += entering[layer, 0]
            decodes += entering[layer, 1]
            per_layer = curve_at(x, y, low[c, 0], count[c, 0], float(prefill))
            per_layer += curve_at(x, y, low[c, 1], count[c, 1], float(decodes))
        seconds += per_layer
    copied = (prefill + decodes) * clock.copy_bytes
    return (seconds + copied / 4e9 + copied / 5e9) * node.slowdown


@njit(cache=True, inline="always")
def start_step(state, here, curves):
    """Begin a step if the node is idle, alive and something waits."""
    nodes, clock, heap = state[0], state[7], state[8]
    node = nodes[here]
    if node.running or not node.alive:
        return
    choose_step(state, node, here)
    if node.batch_head < 0:
        return
    node.running = 1
    node.batch_start = clock.now
    keep_books(node, clock)
    end = clock.now + step_seconds(state, node, curves)
    code = node.step_id * len(nodes) + here
    events.push(heap, state[10], clock, end, STEP_DONE, code)


@njit(cache=True, inline="always")
def step_done(state, here, batches, averages, smoothing, load_of):
    """End a step: pieces go on to their next hop, a message a hop."""
    nodes, links, queries, routes, pieces, _, _, clock, heap = state[:9]
    node = nodes[here]
    end_step(node, here, batches, clock)
    at = node.batch_head
    node.batch_head = -1
    while at >= 0:
        piece = pieces[at]
        following = piece.next
        if is_stale(pieces, queries, at):
            drop_piece(pieces, clock, at)
        else:
            if len(averages) > 0:
                came_by = load_of[routes[piece.query, piece.hop]]
                if came_by >= 0:
                    spent = clock.now - piece.sent_at
                    averages[came_by] = smoothing * spent + (1 - smoothing) * averages[came_by]
            piece.hop += 1
            piece.layer = node.start + node.layers
            index = routes[piece.query, piece.hop]
            if links[index].target == len(nodes) - 1 and not piece.last:
                drop_piece(pieces, clock, at)
            else:
                post(state, index, at)
        at = following
    mail_all(state)
    events.push(heap, state[10], clock, clock.now, START_STEP, here)


@njit(cache=True, inline="always")
def received(state, number, token_request, token_time, finished, continued, loads, flows, load_of):
    """A message arrives: at a node its pieces wait for the next step, at the coordinator its tokens are noted."""
    nodes, links, queries, routes, pieces, messages, boxes, clock, heap = state[:9]
    message = messages[number]
    here = links[message.link].target
    at = message.head
    message.next = clock.free_message
    clock.free_message = number
    clock.free_messages += 1
    at_coordinator = here == len(nodes) - 1
    while at >= 0:
        piece = pieces[at]
        following = piece.next
        if is_stale(pieces, queries, at) or (not at_coordinator and not nodes[here].alive):
            drop_piece(pieces, clock, at)
        elif not at_coordinator:
            append(boxes[2 * here + (0 if piece.decode else 1)], pieces, at)
        else:
            query = queries[piece.query]
            query.done += 1
            token_request[clock.tokens] = piece.query
            token_time[clock.tokens] = clock.now
            clock.tokens += 1
            if query.done >= query.output:
                finished[clock.finished] = piece.query
                clock.finished += 1
                drop_piece(pieces, clock, at)
            else:
                continued[clock.continued] = piece.query
                clock.continued += 1
                for hop in range(query.hops):
                    if len(loads) > 0:
                        link = load_of[routes[piece.query, hop]]
                        if link >= 0:
                            loads[link] += 1.0 / flows[link]
                piece.decode, piece.last, piece.tokens, piece.hop, piece.layer = 1, 1, 1, 0, 0
                post(state, routes[piece.query, 0], at)
        at = following
    if at_coordinator:
        mail_all(state)
    else:
        events.push(heap, state[10], clock, clock.now, START_STEP, here)


@njit(cache=True)
def launch(state, number, chunk_tokens):
    """Send a request's prompt (and what it had generated before a restart) to its first stage, in chunks."""
    _, _, queries, routes, pieces, _, _, clock = state[:8]
    query = queries[number]
    left = query.input + query.done
    while left > 0:
        at = take_piece(pieces, clock)
        piece = pieces[at]
        piece.query, piece.epoch, piece.tokens = number, query.epoch, min(chunk_tokens, left)
        left -= piece.tokens
        piece.decode, piece.last, piece.hop, piece.layer = 0, 1 if left == 0 else 0, 0, 0
        post(state, routes[number, 0], at)
    mail_all(state)


@njit(cache=True)
def kill(state, here):
    """A node is gone: what it ran and what waited there is lost."""
    nodes, _, _, _, pieces, _, boxes, clock = state[:8]
    node = nodes[here]
    node.alive, node.running = 0, 0
    node.step_id += 1
    keep_books(node, clock)
    at = node.batch_head
    node.batch_head = -1
    while at >= 0:
        following = pieces[at].next
        drop_piece(pieces, clock, at)
        at = following
    for phase in range(2):
        box = boxes[2 * here + phase]
        at = box.head
        while at >= 0:
            following = pieces[at].next
            drop_piece(pieces, clock, at)
            at = following
        box.head, box.tail, box.count = -1, -1, 0


@njit(cache=True)
def advance(
    state, curves, token_request, token_time, batches, finished, continued, loads, flows, load_of, averages, smoothing,
    ask_tokens, until,
):  # fmt: skip
    """Handle every event before `until`; returns why it stopped."""
    nodes, links, queries, clock, heap = state[0], state[1], state[2], state[7], state[8]
    clock.finished = clock.continued = 0
    while events.next_time(heap, clock) < until:
        if (
            clock.tokens + len(queries) >= len(token_time)
            or clock.batches + 1 >= len(batches)
            or clock.free_messages < 2 * len(links)
        ):
            return FULL
        code = events.pop(heap, state[10], clock)
        clock.events += 1
        kind, argument = code >> events.KIND_SHIFT, code & events.ARGUMENT
        if kind == START_STEP:
            start_step(state, argument, curves)
        elif kind == STEP_DONE:
            here = argument % len(nodes)
            if nodes[here].running and nodes[here].step_id == argument // len(nodes):
                step_done(state, here, batches, averages, smoothing, load_of)
        elif kind == SENT:
            sent(state, argument)
        else:
            received(state, argument, token_request, token_time, finished, continued, loads, flows, load_of)
            if clock.finished > 0:
                return DONE
            if ask_tokens and clock.continued > 0:
                return TOKENS
            clock.continued = 0
    return REACHED
