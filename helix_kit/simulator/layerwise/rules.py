"""The published simulator's rules, event by event, in compiled code.

`advance` runs until Python has to decide something, and says what: a prompt wants a pipeline, a prompt or a whole
request has finished, an array is full, or the time asked for is reached. Requests of the same moment are handled
in the order in which their events were made; the published results depend on this order.

Python calls `advance`, `announce` and `send_prompt`, with the state as a plain tuple.

In the functions `here` is the number of an endpoint and `at` that of a request.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# Compiled code: numba infers the types.
from __future__ import annotations

import numpy as np

from helix_kit.simulator import events
from helix_kit.simulator.compiled import compiled, inlined
from helix_kit.simulator.layerwise import network
from helix_kit.simulator.layerwise import node as compute
from helix_kit.simulator.layerwise.state import unpacked
from helix_kit.simulator.node import account_time, end_step
from helix_kit.simulator.state import receiving_side, sending_side

NEW, START_SENDING, SENT, RECEIVED, START_LAYER, LAYER_DONE, GATHER = range(7)
REACHED, ROUTE, PROMPT_DONE, REQUEST_DONE, FULL = range(5)
"""Why `advance` returned."""


@inlined
def start_sending(state, here):
    """Send what may leave an endpoint now."""
    if state.clock.policy == network.GRANTED:
        network.start_granted(state, here, SENT)
    elif state.clock.policy == network.SWARM:
        network.start_swarm(state, here, SENT, START_SENDING)
    else:
        network.start_hop_by_hop(state, here, SENT)


@inlined
def start_layer(state, here):
    """Begin the next layer step of a node, if it is idle and something waits."""
    queues, clock = state.queues, state.clock
    node = state.nodes[here]
    if node.running:
        return
    if queues[node.first_queue + node.layer].count == 0:
        compute.march(node, queues)
        if queues[node.first_queue + node.layer].count == 0:
            return
    compute.take_batch(node, queues, state.requests)
    if node.batch_head < 0:
        return
    seconds = compute.layer_seconds(node, state.curves, clock.copy_bytes)
    node.running = 1
    node.batch_start = clock.now
    account_time(node, clock)
    events.push(state.heap, state.fifo, clock, clock.now + seconds, LAYER_DONE, here)


@inlined
def layer_done(state, here):
    """End a layer step: its requests move on to the next layer, or leave after the last."""
    requests, queues = state.requests, state.queues
    clock, heap, fifo = state.clock, state.heap, state.fifo
    node = state.nodes[here]
    end_step(node, here, state.log.batches, clock)
    node.kv_used += node.batch_prefill + node.batch_decodes
    node.kv_peak = max(node.kv_peak, node.kv_used)
    at = node.batch_head
    last = node.layer == node.layers - 1
    while at >= 0:
        request = requests[at]
        following = request.next
        if last:
            request.layer = node.start + node.layers
            network.leave_node(state, here, at)
        else:
            compute.append(queues, node.first_queue + node.layer + 1, requests, at)
        at = following
    node.batch_head = -1
    if last:
        events.push(heap, fifo, clock, clock.now, START_SENDING, here)
    compute.march(node, queues)
    events.push(heap, fifo, clock, clock.now, START_LAYER, here)


@inlined
def received(state, at):
    """A request arrives over its link."""
    requests, clock, heap, fifo = state.requests, state.clock, state.heap, state.fifo
    request = requests[at]
    here = state.links[request.send_link].target
    if here == receiving_side(state.nodes):
        request.next = -1
        if clock.sink_head < 0:
            clock.sink_head = at
        else:
            requests[clock.sink_tail].next = at
        clock.sink_tail = at
        events.push(heap, fifo, clock, clock.now, GATHER, 0)
        return
    node = state.nodes[here]
    compute.append(state.queues, node.first_queue + request.layer - node.start, requests, at)
    node.unread_tokens += 1 if request.decoding else request.input
    events.push(heap, fifo, clock, clock.now, START_LAYER, here)


@inlined
def set_out(state, at):
    """A request leaves the coordinator now."""
    clock, coordinator = state.clock, sending_side(state.nodes)
    network.leave_node(state, coordinator, at)
    events.push(state.heap, state.fifo, clock, clock.now, START_SENDING, coordinator)


@inlined
def begin_decode(state, at):
    """A decode step sets out from the coordinator; the policy's loads count it."""
    request, loads = state.requests[at], state.loads
    request.hop = 0
    request.layer = 0
    if len(loads.load) > 0:
        for hop in range(request.hops):
            link = loads.of_link[state.routes[at, hop]]
            if link >= 0:
                loads.load[link] += 1.0 / loads.flow[link]
    set_out(state, at)


@inlined
def gather(state):
    """Take the next request that has come back; (why Python is wanted or REACHED, request)."""
    nodes, links, requests, routes = state.nodes, state.links, state.requests, state.routes
    clock, log = state.clock, state.log
    while clock.sink_head >= 0:
        at = clock.sink_head
        request = requests[at]
        clock.sink_head = request.next
        if clock.sink_head < 0:
            clock.sink_tail = -1
        log.token_request[clock.tokens] = at
        log.token_time[clock.tokens] = clock.now
        clock.tokens += 1
        was_prompt = not request.decoding
        if was_prompt:
            request.decoding = 1
        else:
            request.done += 1
        if request.done < request.output:
            events.push(state.heap, state.fifo, clock, clock.now, NEW, at)
            if was_prompt:
                clock.gathering = 1
                return PROMPT_DONE, at
        else:
            layer = 0
            for hop in range(request.hops - 1):
                node = nodes[links[routes[at, hop]].target]
                node.kv_used -= (request.input + request.output) * (node.start + node.layers - layer)
                layer = node.start + node.layers
            clock.gathering = 1
            return REQUEST_DONE, at
    clock.gathering = 0
    return REACHED, -1


@compiled
def send_prompt(plain, at):
    """A prompt that has its pipeline, or chooses hop by hop, leaves the coordinator now."""
    state = unpacked(plain)
    set_out(state, at)


@compiled
def advance(plain, until):
    """Handle every event before `until`; returns (why it stopped, request or -1)."""
    state = unpacked(plain)
    links, requests = state.links, state.requests
    clock, heap, fifo = state.clock, state.heap, state.fifo
    token_time, batches = state.log.token_time, state.log.batches
    if clock.gathering:
        why, at = gather(state)
        if why != REACHED:
            return why, at
    while events.next_time(heap, clock) < until:
        if clock.tokens + len(requests) >= len(token_time) or clock.batches + 1 >= len(batches):
            return FULL, np.int64(-1)
        code = events.pop(heap, fifo, clock)
        clock.events += 1
        kind, argument = code >> events.KIND_SHIFT, code & events.ARGUMENT
        if kind == START_LAYER:
            start_layer(state, argument)
        elif kind == LAYER_DONE:
            layer_done(state, argument)
        elif kind == START_SENDING:
            start_sending(state, argument)
        elif kind == SENT:
            link = links[network.stop_sending(state, argument)]
            events.push(heap, fifo, clock, clock.now, START_SENDING, link.source)
            arrival = clock.now + link.latency
            events.push(heap, fifo, clock, arrival, RECEIVED, argument)
        elif kind == RECEIVED:
            received(state, argument)
        elif kind == GATHER:
            why, at = gather(state)
            if why != REACHED:
                return why, at
        elif requests[argument].decoding:
            begin_decode(state, argument)
        else:
            return ROUTE, argument
    return REACHED, np.int64(-1)


@compiled
def announce(plain, at, time):
    """A request will arrive at `time`."""
    state = unpacked(plain)
    events.push(state.heap, state.fifo, state.clock, time, NEW, at)
