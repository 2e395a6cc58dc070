"""Messages of our runtime in compiled code: pieces of work bundled by next hop, one message at a time on a link.

A piece is a prefill chunk or one decode token on its way along its request's pipeline.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# Compiled code: numba infers the types.
from __future__ import annotations

from numba import njit

from helix_kit.simulator import events
from helix_kit.simulator.node import keep_books

START_STEP, STEP_DONE, SENT, RECEIVED = range(4)
"""Kinds of events."""
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


@njit(cache=True, inline="always")
def drop_piece(pieces, clock, at):
    """Return a piece to the free ones."""
    pieces[at].next = clock.free_piece
    clock.free_piece = at
    clock.free_pieces += 1


@njit(cache=True, inline="always")
def append(box, pieces, at):
    """Put a piece at the end of a chain (a record with head, tail and count)."""
    pieces[at].next = -1
    if box.count == 0:
        box.head = at
    else:
        pieces[box.tail].next = at
    box.tail = at
    box.count += 1


@njit(cache=True, inline="always")
def is_stale(pieces, queries, at):
    """Whether the piece belongs to an earlier attempt of its request."""
    return pieces[at].epoch != queries[pieces[at].query].epoch


@njit(cache=True, inline="always")
def post(state, index, at):
    """Add a piece to the message that is being written for a link."""
    links, pieces, clock = state[1], state[4], state[7]
    link = links[index]
    pieces[at].next = -1
    if link.draft_head < 0:
        link.draft_head = at
        link.draft_next = -1
        if clock.drafts < 0:
            clock.drafts = index
        else:
            links[clock.last_draft].draft_next = index
        clock.last_draft = index
    else:
        pieces[link.draft_tail].next = at
    link.draft_tail = at


@njit(cache=True, inline="always")
def mail(state, index):
    """Close the message written for a link and hand it to the network."""
    nodes, links, _, _, pieces, messages, _, clock = state[:8]
    link = links[index]
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


@njit(cache=True, inline="always")
def wake(state, sender, receiver):
    """Network cards have room again: start what stalled at this sender or in front of this receiver."""
    nodes, links, into = state[0], state[1], state[11]
    first = nodes[sender].first_link
    for index in range(first, first + nodes[sender].links):
        if links[index].taken:
            start_message(state, index)
    for place in range(nodes[receiver].first_into, nodes[receiver].first_into + nodes[receiver].intos):
        if links[into[place]].taken:
            start_message(state, into[place])


@njit(cache=True, inline="always")
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
        wake(state, link.source, link.target)


@njit(cache=True)
def mail_all(state):
    """Close and send every message that is being written, in the order in which they were begun."""
    links, clock = state[1], state[7]
    index = clock.drafts
    clock.drafts = -1
    while index >= 0:
        following = links[index].draft_next
        mail(state, index)
        index = following
