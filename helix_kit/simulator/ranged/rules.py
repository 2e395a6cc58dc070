"""Our runtime's rules in compiled code: a step runs a node's whole layer range over prefill chunks and decode tokens.

A step takes decodes first, then prefill chunks, within a budget of tokens and at most one chunk of a request. Chunks
that enter in the middle of the node's range take part from their first layer on. The chunks of a step that have the
same next hop travel as one message.

Python calls `advance`, `launch`, `send_all` and `kill`, with the state as a plain tuple.

In the functions `here` is the number of an endpoint, `number` that of a message or request and `at` that of a chunk.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# Compiled code: numba infers the types.
from __future__ import annotations

from helix_kit.simulator import events
from helix_kit.simulator.compiled import compiled, inlined
from helix_kit.simulator.node import (
    DECODE,
    PREFILL,
    TO_GPU_BYTES_PER_S,
    TO_HOST_BYTES_PER_S,
    account_time,
    curve_at,
    end_step,
)
from helix_kit.simulator.ranged.messages import (
    SENT,
    START_STEP,
    STEP_DONE,
    append,
    close_all_messages,
    drop_chunk,
    is_stale,
    post,
    sent,
    take_chunk,
)
from helix_kit.simulator.ranged.state import unpacked
from helix_kit.simulator.state import receiving_side

REACHED, DONE, TOKENS, FULL = range(4)
"""Why `advance` returned; DONE comes with requests in `finished`, TOKENS with requests in `continued` or `prompted`."""


@inlined
def choose_step(state, node, here):
    """Move the chunks of the next step from the node's two queues to its batch."""
    requests, chunks, inboxes, clock = state.requests, state.chunks, state.inboxes, state.clock
    node.step_id += 1
    node.batch_head, node.batch_tail, node.batch_prefill, node.batch_decodes = -1, -1, 0, 0
    budget = clock.step_tokens
    for phase in range(2):
        inbox = inboxes[2 * here + phase]
        previous, at = -1, inbox.head
        while at >= 0 and budget > 0:
            chunk = chunks[at]
            following = chunk.next
            stale = is_stale(chunks, requests, at)
            takes = False
            if not stale:
                if phase == 0:
                    takes = node.batch_decodes < node.decode_max
                    if not takes:
                        break
                else:
                    fits = chunk.tokens <= budget or node.batch_head < 0
                    takes = fits and requests[chunk.request].step_id != node.step_id * len(inboxes) + here
            if not stale and not takes:
                # Chunks of a request run in their order: those behind one that does not fit wait with it.
                requests[chunk.request].step_id = node.step_id * len(inboxes) + here
                previous = at
                at = following
                continue
            if previous < 0:
                inbox.head = following
            else:
                chunks[previous].next = following
            if inbox.tail == at:
                inbox.tail = previous
            inbox.count -= 1
            if stale:
                drop_chunk(chunks, clock, at)
            else:
                requests[chunk.request].step_id = node.step_id * len(inboxes) + here
                budget -= chunk.tokens
                if phase == 0:
                    node.batch_decodes += 1
                else:
                    node.batch_prefill += chunk.tokens
                chunk.next = -1
                if node.batch_head < 0:
                    node.batch_head = at
                else:
                    chunks[node.batch_tail].next = at
                node.batch_tail = at
            at = following


@inlined
def step_seconds(state, node):
    """Time of the batch: layer by layer, with the chunks that have entered by then."""
    chunks, entering, curves = state.chunks, state.entering, state.curves
    for layer in range(node.layers):
        entering[layer, 0] = 0
        entering[layer, 1] = 0
    at = node.batch_head
    while at >= 0:
        chunk = chunks[at]
        entering[chunk.layer - node.start, chunk.decode] += chunk.tokens
        at = chunk.next
    kind = node.curve
    seconds, per_layer = 0.0, 0.0
    prefill, decodes = 0, 0
    for layer in range(node.layers):
        if entering[layer, 0] > 0 or entering[layer, 1] > 0:
            prefill += entering[layer, 0]
            decodes += entering[layer, 1]
            per_layer = curve_at(curves, kind, PREFILL, float(prefill))
            per_layer += curve_at(curves, kind, DECODE, float(decodes))
        seconds += per_layer
    copied = (prefill + decodes) * state.clock.copy_bytes
    return (seconds + copied / TO_GPU_BYTES_PER_S + copied / TO_HOST_BYTES_PER_S) * node.slowdown


@inlined
def start_step(state, here):
    """Begin a step if the node is idle, alive and something waits."""
    nodes, clock = state.nodes, state.clock
    node = nodes[here]
    if node.running or not node.alive:
        return
    choose_step(state, node, here)
    if node.batch_head < 0:
        return
    node.running = 1
    node.batch_start = clock.now
    account_time(node, clock)
    end = clock.now + step_seconds(state, node)
    code = node.step_id * len(nodes) + here
    events.push(state.heap, state.fifo, clock, end, STEP_DONE, code)


@inlined
def step_done(state, here):
    """End a step: its chunks go on, one message for each next hop."""
    nodes, links, requests, routes = state.nodes, state.links, state.requests, state.routes
    chunks, clock, averages = state.chunks, state.clock, state.hop_averages
    node = nodes[here]
    end_step(node, here, state.log.batches, clock)
    at = node.batch_head
    node.batch_head = -1
    while at >= 0:
        chunk = chunks[at]
        following = chunk.next
        if is_stale(chunks, requests, at):
            drop_chunk(chunks, clock, at)
        else:
            if len(averages) > 0:
                came_by = state.loads.of_link[routes[chunk.request, chunk.hop]]
                if came_by >= 0:
                    spent = clock.now - chunk.sent_at
                    averages[came_by] = clock.smoothing * spent + (1 - clock.smoothing) * averages[came_by]
            chunk.hop += 1
            chunk.layer = node.start + node.layers
            index = routes[chunk.request, chunk.hop]
            ends_here = links[index].target == receiving_side(nodes)
            if ends_here and not chunk.last:
                drop_chunk(chunks, clock, at)
            else:
                if ends_here and goes_on(clock, requests[chunk.request]):
                    decode_next(state, node, here, at)
                post(state, index, at)
        at = following
    close_all_messages(state)
    events.push(state.heap, state.fifo, clock, clock.now, START_STEP, here)


@inlined
def goes_on(clock, request):
    """Whether a node decodes the request's new token without waiting for the coordinator: it is the only stage."""
    return clock.goes_on and request.hops == 2


@inlined
def decode_next(state, node, here, at):
    """Let the token that follows chunk `at` wait for the node's next step, if it is not the last one."""
    requests, chunks, clock = state.requests, state.chunks, state.clock
    number = chunks[at].request
    request = requests[number]
    request.sampled += 1
    if request.sampled < request.output:
        own = take_chunk(chunks, clock)
        chunk = chunks[own]
        chunk.request, chunk.epoch, chunk.tokens = number, request.epoch, 1
        chunk.decode, chunk.last, chunk.hop, chunk.layer = 1, 1, 0, node.start
        chunk.sent_at = clock.now
        append(state.inboxes[2 * here], chunks, own)


@inlined
def received(state, number):
    """A message arrives: at a node its chunks wait for the next step, at the coordinator its tokens are noted."""
    nodes, requests, routes, chunks, clock = state.nodes, state.requests, state.routes, state.chunks, state.clock
    loads, log = state.loads, state.log
    message = state.messages[number]
    here = state.links[message.link].target
    at = message.head
    message.next = clock.free_message
    clock.free_message = number
    clock.free_messages += 1
    at_coordinator = here == receiving_side(nodes)
    while at >= 0:
        chunk = chunks[at]
        following = chunk.next
        if is_stale(chunks, requests, at) or (not at_coordinator and not nodes[here].alive):
            drop_chunk(chunks, clock, at)
        elif not at_coordinator:
            append(state.inboxes[2 * here + (0 if chunk.decode else 1)], chunks, at)
        else:
            request = requests[chunk.request]
            request.done += 1
            if clock.ask_prompts and request.done == request.resumed + 1:
                state.prompted[clock.prompted] = chunk.request
                clock.prompted += 1
            log.token_request[clock.tokens] = chunk.request
            log.token_time[clock.tokens] = clock.now
            clock.tokens += 1
            if request.done >= request.output:
                state.finished[clock.finished] = chunk.request
                clock.finished += 1
                drop_chunk(chunks, clock, at)
            else:
                state.continued[clock.continued] = chunk.request
                clock.continued += 1
                for hop in range(request.hops):
                    if len(loads.load) > 0:
                        link = loads.of_link[routes[chunk.request, hop]]
                        if link >= 0:
                            loads.load[link] += 1.0 / loads.flow[link]
                if goes_on(clock, request):
                    drop_chunk(chunks, clock, at)
                else:
                    chunk.decode, chunk.last, chunk.tokens, chunk.hop, chunk.layer = 1, 1, 1, 0, 0
                    post(state, routes[chunk.request, 0], at)
        at = following
    if not at_coordinator:
        events.push(state.heap, state.fifo, clock, clock.now, START_STEP, here)
    elif clock.finished == 0:
        # Otherwise the requests that are now admitted travel in the same messages: see `send_all`.
        close_all_messages(state)


@compiled
def launch(plain, number, chunk_tokens, cached):
    """Write a request's prompt (and what it had generated before a restart) in chunks for its first stage.

    The first `cached` tokens are in the prefix caches of all its stages. `send_all` sends what was written.
    """
    state = unpacked(plain)
    routes, chunks, clock = state.routes, state.chunks, state.clock
    request = state.requests[number]
    left = request.input + request.done - cached
    request.sampled = request.resumed = request.done
    while left > 0:
        at = take_chunk(chunks, clock)
        chunk = chunks[at]
        chunk.request, chunk.epoch, chunk.tokens = number, request.epoch, min(chunk_tokens, left)
        left -= chunk.tokens
        chunk.decode, chunk.last, chunk.hop, chunk.layer = 0, 1 if left == 0 else 0, 0, 0
        post(state, routes[number, 0], at)


@compiled
def send_all(plain):
    """Send what the coordinator has written in this round, one message to each first stage, as our runtime does."""
    close_all_messages(unpacked(plain))


@compiled
def kill(plain, here):
    """A node is gone: the chunks that it ran and those that waited there are lost."""
    state = unpacked(plain)
    chunks, clock = state.chunks, state.clock
    node = state.nodes[here]
    node.alive, node.running = 0, 0
    node.step_id += 1
    account_time(node, clock)
    at = node.batch_head
    node.batch_head = -1
    while at >= 0:
        following = chunks[at].next
        drop_chunk(chunks, clock, at)
        at = following
    for phase in range(2):
        inbox = state.inboxes[2 * here + phase]
        at = inbox.head
        while at >= 0:
            following = chunks[at].next
            drop_chunk(chunks, clock, at)
            at = following
        inbox.head, inbox.tail, inbox.count = -1, -1, 0


@compiled
def advance(plain, until):
    """Handle every event before `until`; returns why it stopped."""
    state = unpacked(plain)
    nodes, links, requests = state.nodes, state.links, state.requests
    clock, heap, fifo = state.clock, state.heap, state.fifo
    token_time, batches = state.log.token_time, state.log.batches
    clock.finished = clock.continued = clock.prompted = 0
    while events.next_time(heap, clock) < until:
        if (
            clock.tokens + len(requests) >= len(token_time)
            or clock.batches + 1 >= len(batches)
            or clock.free_messages < 2 * len(links)
            or clock.free_chunks < clock.step_tokens
        ):
            return FULL
        code = events.pop(heap, fifo, clock)
        clock.events += 1
        kind, argument = code >> events.KIND_SHIFT, code & events.ARGUMENT
        if kind == START_STEP:
            start_step(state, argument)
        elif kind == STEP_DONE:
            here = argument % len(nodes)
            if nodes[here].running and nodes[here].step_id == argument // len(nodes):
                step_done(state, here)
        elif kind == SENT:
            sent(state, argument)
        else:
            received(state, argument)
            if clock.finished > 0:
                return DONE
            if (clock.ask_tokens and clock.continued > 0) or clock.prompted > 0:
                return TOKENS
            clock.continued = 0
    return REACHED
