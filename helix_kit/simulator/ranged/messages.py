"""Messages of our runtime in compiled code: chunks bundled by next hop, one message at a time on a link.

A chunk is a part of a prompt, or one decode token, on its way along its request's pipeline. In the functions `here` is
the number of an endpoint, `index` that of a link, `number` that of a message and `at` that of a chunk.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# Compiled code: numba infers the types.
from __future__ import annotations

from helix_kit.simulator import events
from helix_kit.simulator.compiled import compiled, inlined
from helix_kit.simulator.node import account_time
from helix_kit.simulator.state import receiving_side

START_STEP, STEP_DONE, SENT, RECEIVED = range(4)
"""Kinds of events."""
MIN_BANDWIDTH_SHARE = 0.1
"""A message waits rather than starting at less than this share of its link's bandwidth."""
TOKEN_MESSAGE_BYTES = 8
"""The last stage returns this much for each request: a token and the request's number."""


@compiled
def take_chunk(chunks, clock):
    """Number of a free chunk, which is then in use."""
    at = clock.free_chunk
    clock.free_chunk = chunks[at].next
    clock.free_chunks -= 1
    chunks[at].next = -1
    return at


@inlined
def drop_chunk(chunks, clock, at):
    """Return a chunk to the free ones."""
    chunks[at].next = clock.free_chunk
    clock.free_chunk = at
    clock.free_chunks += 1


@inlined
def append(inbox, chunks, at):
    """Put a chunk at the end of a chain (a record with head, tail and count)."""
    chunks[at].next = -1
    if inbox.count == 0:
        inbox.head = at
    else:
        chunks[inbox.tail].next = at
    inbox.tail = at
    inbox.count += 1


@inlined
def is_stale(chunks, requests, at):
    """Whether the chunk belongs to an earlier attempt of its request."""
    return chunks[at].epoch != requests[chunks[at].request].epoch


@inlined
def post(state, index, at):
    """Add a chunk to the message that is being written for a link."""
    links, chunks, clock = state.links, state.chunks, state.clock
    link = links[index]
    chunks[at].next = -1
    if link.draft_head < 0:
        link.draft_head = at
        link.draft_next = -1
        if clock.drafts < 0:
            clock.drafts = index
        else:
            links[clock.last_draft].draft_next = index
        clock.last_draft = index
    else:
        chunks[link.draft_tail].next = at
    link.draft_tail = at


@inlined
def close_message(state, index):
    """Close the message that is being written for a link and put it into the link's queue."""
    nodes, links, chunks, messages, clock = state.nodes, state.links, state.chunks, state.messages, state.clock
    link = links[index]
    bare = link.target == receiving_side(nodes)
    size, at = 0.0, link.draft_head
    while at >= 0:
        size += TOKEN_MESSAGE_BYTES if bare else chunks[at].tokens * link.bytes_per_token
        at = chunks[at].next
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
        account_time(sender, clock)


@compiled
def start_message(state, index):
    """Send the first message of a link's queue, if the link is idle and both network cards have room."""
    nodes, links, chunks, messages, clock = state.nodes, state.links, state.chunks, state.messages, state.clock
    link = links[index]
    if link.sending or link.head < 0:
        return False
    sender, receiver = nodes[link.source], nodes[link.target]
    rate = min(link.bandwidth, sender.send_free, receiver.receive_free)
    if rate < MIN_BANDWIDTH_SHARE * link.bandwidth:
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
        account_time(sender, clock)
    at = message.head
    while at >= 0:
        chunks[at].sent_at = clock.now
        at = chunks[at].next
    events.push(state.heap, state.fifo, clock, clock.now + message.size / rate, SENT, number)
    return True


@inlined
def wake(state, sender, receiver):
    """Two network cards have room again: start the messages that stalled at this sender or this receiver."""
    nodes, links, into = state.nodes, state.links, state.into
    first = nodes[sender].first_link
    for index in range(first, first + nodes[sender].links):
        if links[index].taken:
            start_message(state, index)
    for place in range(nodes[receiver].first_into, nodes[receiver].first_into + nodes[receiver].intos):
        if links[into[place]].taken:
            start_message(state, into[place])


@inlined
def sent(state, number):
    """The last byte of a message has left."""
    nodes, clock = state.nodes, state.clock
    message = state.messages[number]
    link = state.links[message.link]
    link.sending = 0
    nodes[link.source].send_free += link.granted
    nodes[link.target].receive_free += link.granted
    begin, end = max(link.since, clock.window_start), min(clock.now, clock.window_end)
    if end > begin:
        link.busy += end - begin
        link.bytes += link.granted * (end - begin)
        link.messages += 1
    events.push(state.heap, state.fifo, clock, clock.now + link.latency, RECEIVED, number)
    start_message(state, message.link)
    if clock.stalled > 0:
        wake(state, link.source, link.target)


@compiled
def close_all_messages(state):
    """Close every message that is being written, in the order in which they were begun."""
    links, clock = state.links, state.clock
    index = clock.drafts
    clock.drafts = -1
    while index >= 0:
        following = links[index].draft_next
        close_message(state, index)
        index = following
