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
from helix_kit.simulator.node import curve_at, keep_books

START_STEP, STEP_DONE, SENT, RECEIVED = range(4)
REACHED, DONE, TOKENS, FULL = range(4)
"""Why `advance` returned; DONE and TOKENS come with chains of requests in `finished` and `continued`."""
LEAST_SHARE = 0.1
"""A message waits rather than starting at less than this share of its link's bandwidth."""
SINK_BYTES = 8
"""What the last stage returns for each request: a token and its id."""


@njit(cache=True)
def take_piece(pieces, clock):
    """A free piece."""
    at = clock.free_piece
    clock.free_piece = pieces[at].next
    clock.free_pieces -= 1
    pieces[at].next = -1
    return at


@njit(cache=True)
def drop_piece(pieces, clock, at):
    """Return a piece to the free ones."""
    pieces[at].next = clock.free_piece
    clock.free_piece = at
    clock.free_pieces += 1


@njit(cache=True)
def append(box, pieces, at):
    """Put a piece at the end of a chain (a record with head, tail and count)."""
    pieces[at].next = -1
    if box.count == 0:
        box.head = at
    else:
        pieces[box.tail].next = at
    box.tail = at
    box.count += 1


@njit(cache=True)
def is_stale(pieces, queries, at):
    """Whether the piece belongs to an earlier attempt of its request."""
    return pieces[at].epoch != queries[pieces[at].query].epoch


@njit(cache=True)
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


@njit(cache=True)
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


@njit(cache=True)
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


@njit(cache=True)
def post(state, index, at):
    """Add a piece to the message that is being written for a link."""
    links, pieces = state[1], state[4]
    link = links[index]
    pieces[at].next = -1
    if link.draft_head < 0:
        link.draft_head = at
    else:
        pieces[link.draft_tail].next = at
    link.draft_tail = at


@njit(cache=True)
def mail(state, index):
    """Close the message written for a link and hand it to the network."""
    nodes, links, _, _, pieces, messages, _, clock = state[:8]
    link = links[index]
    if link.draft_head < 0:
        return
    bare = link.target == len(nodes) - 1
    size, at = 0.0, link.draft_head
    while at >= 0:
        size += SINK_BYTES if bare else pieces[at].tokens * link.bytes_per_token
        at = pieces[at].next
    number = clock.free_message
    message = messages[number]
    clock.free_message = message.next
    clock.free_messages -= 1
    message.head, message.link, message.size, message.next = link.draft_head, index, size, -1
    link.draft_head = link.draft_tail = -1
    if link.head < 0:
        link.head = number
    else:
        messages[link.tail].next = number
    link.tail = number
    sender = nodes[link.source]
    sender.out_count += 1
    if not start_message(state, index) and sender.out_count == 1:
        keep_books(sender, clock)


@njit(cache=True)
def start_message(state, index):
    """Send the first message of a link's queue, if the link is idle and both network cards have room."""
    nodes, links, _, _, pieces, messages, _, clock, heap = state[:9]
    link = links[index]
    if link.sending or link.head < 0:
        return False
    sender, receiver = nodes[link.source], nodes[link.target]
    rate = min(link.bandwidth, sender.send_free, receiver.receive_free)
    if rate < LEAST_SHARE * link.bandwidth:
        if not link.taken:
            link.taken = 1
            clock.stalled += 1
        return False
    if link.taken:
        link.taken = 0
        clock.stalled -= 1
    number = link.head
    message = messages[number]
    link.head = message.next
    link.sending = 1
    link.since = clock.now
    link.granted = rate
    sender.send_free -= rate
    receiver.receive_free -= rate
    sender.out_count -= 1
    if sender.out_count == 0:
        keep_books(sender, clock)
    at = message.head
    while at >= 0:
        pieces[at].sent_at = clock.now
        at = pieces[at].next
    events.push(heap, state[10], clock, clock.now + message.size / rate, SENT, number)
    return True


@njit(cache=True)
def sent(state, number):
    """The last byte of a message has left."""
    nodes, links, _, _, _, messages, _, clock, heap = state[:9]
    message = messages[number]
    link = links[message.link]
    link.sending = 0
    nodes[link.source].send_free += link.granted
    nodes[link.target].receive_free += link.granted
    begin, end = max(link.since, clock.window_start), min(clock.now, clock.window_end)
    if end > begin:
        link.busy += end - begin
        link.bytes += link.granted * (end - begin)
        link.messages += 1
    events.push(heap, state[10], clock, clock.now + link.latency, RECEIVED, number)
    start_message(state, message.link)
    if clock.stalled > 0:
        for index in range(len(links)):
            if links[index].taken:
                start_message(state, index)


@njit(cache=True)
def step_done(state, here, batches, averages, smoothing, load_of):
    """End a step: pieces go on to their next hop, a message a hop."""
    nodes, links, queries, routes, pieces, _, _, clock, heap = state[:9]
    node = nodes[here]
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
    for index in range(node.first_link, node.first_link + node.links):
        mail(state, index)
    events.push(heap, state[10], clock, clock.now, START_STEP, here)


@njit(cache=True)
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
        coordinator = nodes[len(nodes) - 2]
        for index in range(coordinator.first_link, coordinator.first_link + coordinator.links):
            mail(state, index)
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
    mail(state, routes[number, 0])


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
