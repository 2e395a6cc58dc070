"""The published simulator's rules, event by event, in compiled code.

`advance` runs until Python has to decide something, and says what: a prompt wants a pipeline, a prompt or a whole
request has finished, an array is full, or the time asked for is reached. Requests of the same moment are handled
in the order in which their events were made, which the published results depend on.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# Compiled code: numba infers the types.
from __future__ import annotations

import numpy as np
from numba import njit

from helix_kit.simulator import events
from helix_kit.simulator import node as compute
from helix_kit.simulator.layerwise import network

NEW, START_SENDING, SENT, RECEIVED, START_LAYER, LAYER_DONE, GATHER = range(7)
REACHED, ROUTE, PROMPT_DONE, REQUEST_DONE, FULL = range(5)
"""Why `advance` returned."""


@njit(cache=True, inline="always")
def start_sending(state, here):
    """Send what may leave an endpoint now."""
    nodes, links, queries, routes, queues, clock, heap, fifo, mt, scratch = state
    if clock.policy == network.GRANTED:
        network.start_granted(here, nodes, links, queries, clock, heap, fifo, SENT)
    elif clock.policy == network.SWARM:
        network.start_swarm(here, nodes, links, queries, routes, clock, heap, fifo, SENT, START_SENDING, 0.8)
    else:
        network.start_hop_by_hop(here, nodes, links, queries, routes, queues, clock, heap, fifo, SENT, mt, scratch)


@njit(cache=True, inline="always")
def start_layer(state, here, curves):
    """Begin the next layer step of a node, if it is idle and something waits."""
    nodes, _, queries, _, queues, clock, heap, fifo, _, _ = state
    node = nodes[here]
    if node.running:
        return
    if queues[node.first_queue + node.layer].count == 0:
        compute.march(node, queues)
        if queues[node.first_queue + node.layer].count == 0:
            return
    compute.take_batch(node, queues, queries)
    if node.batch_head < 0:
        return
    seconds = compute.layer_seconds(node, curves[0], curves[1], curves[2], curves[3], clock.copy_bytes)
    node.running = 1
    node.batch_start = clock.now
    compute.keep_books(node, clock)
    events.push(heap, fifo, clock, clock.now + seconds, LAYER_DONE, here)


@njit(cache=True, inline="always")
def layer_done(state, here, batches):
    """End a layer step: its requests move on to the next layer, or leave after the last."""
    nodes, links, queries, routes, queues, clock, heap, fifo, _, _ = state
    node = nodes[here]
    compute.end_step(node, here, batches, clock)
    node.kv_used += node.batch_prefill + node.batch_decodes
    node.kv_peak = max(node.kv_peak, node.kv_used)
    at = node.batch_head
    last = node.layer == node.layers - 1
    while at >= 0:
        query = queries[at]
        following = query.next
        if last:
            query.layer = node.start + node.layers
            network.leave_node(here, nodes, links, queries, routes, clock, at)
        else:
            compute.append(queues, node.first_queue + node.layer + 1, queries, at)
        at = following
    node.batch_head = -1
    if last:
        events.push(heap, fifo, clock, clock.now, START_SENDING, here)
    compute.march(node, queues)
    events.push(heap, fifo, clock, clock.now, START_LAYER, here)


@njit(cache=True, inline="always")
def received(state, at):
    """A request arrives over its link."""
    nodes, links, queries, _, queues, clock, heap, fifo, _, _ = state
    query = queries[at]
    here = links[query.send_link].target
    if here == len(nodes) - 1:
        query.next = -1
        if clock.sink_head < 0:
            clock.sink_head = at
        else:
            queries[clock.sink_tail].next = at
        clock.sink_tail = at
        events.push(heap, fifo, clock, clock.now, GATHER, 0)
        return
    node = nodes[here]
    compute.append(queues, node.first_queue + query.layer - node.start, queries, at)
    node.unread_tokens += 1 if query.decoding else query.input
    events.push(heap, fifo, clock, clock.now, START_LAYER, here)


@njit(cache=True, inline="always")
def begin_decode(state, at, loads, flows, load_of):
    """A decode step sets out from the coordinator; the policy's loads count it."""
    nodes, links, queries, routes, _, clock, heap, fifo, _, _ = state
    query = queries[at]
    query.hop = 0
    query.layer = 0
    if len(loads) > 0:
        for hop in range(query.hops):
            link = load_of[routes[at, hop]]
            if link >= 0:
                loads[link] += 1.0 / flows[link]
    network.leave_node(len(nodes) - 2, nodes, links, queries, routes, clock, at)
    events.push(heap, fifo, clock, clock.now, START_SENDING, len(nodes) - 2)


@njit(cache=True, inline="always")
def gather(state, token_request, token_time):
    """Take the next request that has come back; (why Python is wanted or REACHED, request)."""
    nodes, links, queries, routes, _, clock, heap, fifo, _, _ = state
    while clock.sink_head >= 0:
        at = clock.sink_head
        query = queries[at]
        clock.sink_head = query.next
        if clock.sink_head < 0:
            clock.sink_tail = -1
        token_request[clock.tokens] = at
        token_time[clock.tokens] = clock.now
        clock.tokens += 1
        was_prompt = not query.decoding
        if was_prompt:
            query.decoding = 1
        else:
            query.done += 1
        if query.done < query.output:
            events.push(heap, fifo, clock, clock.now, NEW, at)
            if was_prompt:
                clock.gathering = 1
                return PROMPT_DONE, at
        else:
            layer = 0
            for hop in range(query.hops - 1):
                node = nodes[links[routes[at, hop]].target]
                node.kv_used -= (query.input + query.output) * (node.start + node.layers - layer)
                layer = node.start + node.layers
            clock.gathering = 1
            return REQUEST_DONE, at
    clock.gathering = 0
    return REACHED, -1


@njit(cache=True)
def advance(state, curves, token_request, token_time, batches, loads, flows, load_of, until):
    """Handle every event before `until`; returns (why it stopped, request or -1)."""
    nodes, links, queries, _, _, clock, heap, fifo, _, _ = state
    if clock.gathering:
        why, at = gather(state, token_request, token_time)
        if why != REACHED:
            return why, at
    while events.next_time(heap, clock) < until:
        if clock.tokens + len(queries) >= len(token_time) or clock.batches + 1 >= len(batches):
            return FULL, np.int64(-1)
        code = events.pop(heap, fifo, clock)
        clock.events += 1
        kind, argument = code >> events.KIND_SHIFT, code & events.ARGUMENT
        if kind == START_LAYER:
            start_layer(state, argument, curves)
        elif kind == LAYER_DONE:
            layer_done(state, argument, batches)
        elif kind == START_SENDING:
            start_sending(state, argument)
        elif kind == SENT:
            index = network.stop_sending(nodes, links, queries, clock, argument)
            link = links[index]
            events.push(heap, fifo, clock, clock.now, START_SENDING, link.source)
            arrival = clock.now + link.latency
            events.push(heap, fifo, clock, arrival, RECEIVED, argument)
        elif kind == RECEIVED:
            received(state, argument)
        elif kind == GATHER:
            why, at = gather(state, token_request, token_time)
            if why != REACHED:
                return why, at
        elif queries[argument].decoding:
            begin_decode(state, argument, loads, flows, load_of)
        else:
            return ROUTE, argument
    return REACHED, np.int64(-1)


@njit(cache=True)
def set_out(state, at):
    """A prompt has its pipeline (or chooses hop by hop): it leaves the coordinator now."""
    nodes, links, queries, routes, _, clock, heap, fifo, _, _ = state
    network.leave_node(len(nodes) - 2, nodes, links, queries, routes, clock, at)
    events.push(heap, fifo, clock, clock.now, START_SENDING, len(nodes) - 2)


@njit(cache=True)
def announce(state, at, time):
    """A request will arrive at `time`."""
    clock, heap, fifo = state[5], state[6], state[7]
    events.push(heap, fifo, clock, time, NEW, at)
