"""A node under the published rules: one layer of one batch at a time, sweeping its layers in a circle.

A queue stands in front of every layer. A batch takes from the current layer's queue, in order, whatever still fits.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# Compiled code: numba infers the types.
from __future__ import annotations

from helix_kit.simulator.compiled import compiled, inlined
from helix_kit.simulator.node import DECODE, PREFILL, TO_GPU_BYTES_PER_S, TO_HOST_BYTES_PER_S, curve_at


@inlined
def append(queues, index, requests, request):
    """Put a request at the end of a layer's queue."""
    queue = queues[index]
    requests[request].next = -1
    if queue.count == 0:
        queue.head = request
    else:
        requests[queue.tail].next = request
    queue.tail = request
    queue.count += 1


@compiled
def march(node, queues):
    """Advance to the next layer, in a circle, that has something waiting; stay if there is none."""
    for offset in range(1, node.layers):
        layer = node.layer + offset
        if layer >= node.layers:
            layer -= node.layers
        if queues[node.first_queue + layer].count > 0:
            node.layer = layer
            return


@compiled
def take_batch(node, queues, requests):
    """Move what fits from the current layer's queue to the node's batch, in order, skipping what does not fit."""
    queue = queues[node.first_queue + node.layer]
    prompts, prompt_tokens, decodes, context = 0, 0, 0, 0
    head, tail, previous = -1, -1, -1
    at = queue.head
    while at >= 0:
        request = requests[at]
        following = request.next
        if request.decoding:
            size = request.input + request.done
            fits = decodes < node.decode_max and context + size <= node.context_max
            if fits:
                decodes += 1
                context += size
        else:
            fits = prompts < node.prefill_max and prompt_tokens + request.input <= node.prefill_tokens_max
            if fits:
                prompts += 1
                prompt_tokens += request.input
        if fits:
            if previous < 0:
                queue.head = following
            else:
                requests[previous].next = following
            if queue.tail == at:
                queue.tail = previous
            queue.count -= 1
            request.next = -1
            if head < 0:
                head = at
            else:
                requests[tail].next = at
            tail = at
        else:
            previous = at
        at = following
    node.batch_head = head
    node.batch_tail = tail
    node.batch_prefill = prompt_tokens
    node.batch_decodes = decodes


@compiled
def layer_seconds(node, curves, copy_bytes):
    """How long the node's batch takes for one layer; a single decode counts double, as published."""
    kind = node.curve
    seconds = curve_at(curves, kind, PREFILL, float(node.batch_prefill))
    decode = curve_at(curves, kind, DECODE, float(node.batch_decodes))
    if node.batch_decodes == 1:
        decode *= 2
    seconds += decode
    if node.layer == 0:
        # The two terms are added first, so that the rounding is that of the published sum.
        copied = float(node.unread_tokens) * copy_bytes
        seconds += copied / TO_GPU_BYTES_PER_S + copied / TO_HOST_BYTES_PER_S
        node.unread_tokens = 0
    return seconds * node.slowdown
