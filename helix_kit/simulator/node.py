"""A node under the published rules: one layer of one batch at a time, sweeping its layers in a circle.

Queues stand in front of every layer; a batch takes from the current layer's queue, in order, whatever still fits.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# Compiled code: numba infers the types.
from __future__ import annotations

from numba import njit

from helix_kit.simulator.state import BLOCKED, BUSY, STARVED


@njit(cache=True)
def curve_at(x, y, low, count, at):
    """Value of a piecewise linear curve stored in x[low:low + count]; past its end the last slope goes on."""
    left, right = low, low + count - 1
    while right - left > 1:
        middle = (left + right) >> 1
        if x[middle] <= at:
            left = middle
        else:
            right = middle
    if at == x[left]:
        return y[left]
    if at == x[right]:
        return y[right]
    return y[left] + (y[right] - y[left]) * (at - x[left]) / (x[right] - x[left])


@njit(cache=True, inline="always")
def append(queues, index, queries, query):
    """Put a request at the end of a layer's queue."""
    queue = queues[index]
    queries[query].next = -1
    if queue.count == 0:
        queue.head = query
    else:
        queries[queue.tail].next = query
    queue.tail = query
    queue.count += 1


@njit(cache=True)
def march(node, queues):
    """Advance to the next layer, in a circle, that has something waiting; stay if there is none."""
    for offset in range(1, node.layers):
        layer = node.layer + offset
        if layer >= node.layers:
            layer -= node.layers
        if queues[node.first_queue + layer].count > 0:
            node.layer = layer
            return


@njit(cache=True)
def take_batch(node, queues, queries):
    """Move what fits from the current layer's queue to the node's batch, in order, skipping what does not fit."""
    queue = queues[node.first_queue + node.layer]
    prompts, prompt_tokens, decodes, context = 0, 0, 0, 0
    head, tail, previous = -1, -1, -1
    at = queue.head
    while at >= 0:
        query = queries[at]
        following = query.next
        if query.decoding:
            size = query.input + query.done
            fits = decodes < node.decode_max and context + size <= node.context_max
            if fits:
                decodes += 1
                context += size
        else:
            fits = prompts < node.prefill_max and prompt_tokens + query.input <= node.prefill_tokens_max
            if fits:
                prompts += 1
                prompt_tokens += query.input
        if fits:
            if previous < 0:
                queue.head = following
            else:
                queries[previous].next = following
            if queue.tail == at:
                queue.tail = previous
            queue.count -= 1
            query.next = -1
            if head < 0:
                head = at
            else:
                queries[tail].next = at
            tail = at
        else:
            previous = at
        at = following
    node.batch_head = head
    node.batch_tail = tail
    node.batch_prefill = prompt_tokens
    node.batch_decodes = decodes


@njit(cache=True)
def layer_seconds(node, curve_x, curve_y, curve_low, curve_count, copy_bytes):
    """How long the node's batch takes for one layer; a single decode counts double, as published."""
    c = node.curve
    seconds = curve_at(curve_x, curve_y, curve_low[c, 0], curve_count[c, 0], float(node.batch_prefill))
    decode = curve_at(curve_x, curve_y, curve_low[c, 1], curve_count[c, 1], float(node.batch_decodes))
    if node.batch_decodes == 1:
        decode *= 2
    seconds += decode
    if node.layer == 0:
        # Copies between GPU and host, at 4 and 5 GB/s; two terms, so that the rounding is that of the published sum.
        copied = float(node.unread_tokens) * copy_bytes
        seconds += copied / 4e9 + copied / 5e9
        node.unread_tokens = 0
    return seconds * node.slowdown


@njit(cache=True, inline="always")
def keep_books(node, clock):
    """Add the time since the last call to what the node was doing, within the window; then note what it does now."""
    begin = max(node.since, clock.window_start)
    end = min(clock.now, clock.window_end)
    if end > begin:
        if node.state == BUSY:
            node.busy_s += end - begin
        elif node.state == BLOCKED:
            node.blocked_s += end - begin
    node.since = clock.now
    node.state = BUSY if node.running else (BLOCKED if node.out_count > 0 else STARVED)


@njit(cache=True, inline="always")
def end_step(node, here, batches, clock):
    """End the running step of node `here`: its time, its steps and tokens within the window, and a row in `batches`."""
    node.running = 0
    keep_books(node, clock)
    if clock.window_start <= clock.now <= clock.window_end:
        node.steps += 1
        node.prefill_tokens += node.batch_prefill
        node.decode_tokens += node.batch_decodes
    if clock.record_batches:
        batch = batches[clock.batches]
        batch.node, batch.start, batch.end = here, node.batch_start, clock.now
        batch.prefill, batch.decodes = node.batch_prefill, node.batch_decodes
        clock.batches += 1
