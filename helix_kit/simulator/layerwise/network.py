"""Transfers under the published rules: one request at a time on a link, chosen by the policy in force.

Whole pipelines that are fixed at admission and carry a granted bandwidth follow Helix's rule; all others take
what is free on the sender's card, the link and the receiver's card at the moment of sending.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# Compiled code: numba infers the types.
from __future__ import annotations

import numpy as np
from numba import njit

from helix_kit.simulator import mersenne
from helix_kit.simulator.events import push
from helix_kit.simulator.node import keep_books

GRANTED, ROUTED, RANDOM, SHORTEST, SWARM = range(5)
"""Who chooses the next link: GRANTED and ROUTED follow the request's pipeline, the others choose hop by hop."""
LEAST_RATE = 10.0
"""Below this many bytes/s a link counts as taken."""


@njit(cache=True, inline="always")
def leave_node(here, nodes, links, queries, routes, clock, at):
    """A request is done at an endpoint and waits to be sent."""
    endpoint, query = nodes[here], queries[at]
    query.order = clock.order
    clock.order += 1
    if endpoint.out_count == 0:
        endpoint.out_count = 1
        keep_books(endpoint, clock)
    else:
        endpoint.out_count += 1
    if clock.policy == GRANTED:
        enqueue(links[routes[at, query.hop]], queries, at)
        return
    query.out_previous = endpoint.out_tail
    query.out_next = -1
    if endpoint.out_tail < 0:
        endpoint.out_head = at
    else:
        queries[endpoint.out_tail].out_next = at
    endpoint.out_tail = at
    if endpoint.new_head < 0:
        endpoint.new_head = at
    if not query.decoding:
        endpoint.out_prompts += 1


@njit(cache=True, inline="always")
def enqueue(link, queries, at):
    """Put a request at the end of a link's queue."""
    queries[at].next = -1
    if link.head < 0:
        link.head = at
    else:
        queries[link.tail].next = at
    link.tail = at


@njit(cache=True, inline="always")
def dequeue(link, queries):
    """Take the first of a link's queue."""
    at = link.head
    link.head = queries[at].next
    if link.head < 0:
        link.tail = -1
    queries[at].next = -1
    return at


@njit(cache=True)
def unlist(endpoint, queries, at):
    """Take a request out of the endpoint's list of those that wait to leave."""
    query = queries[at]
    if query.out_previous < 0:
        endpoint.out_head = query.out_next
    else:
        queries[query.out_previous].out_next = query.out_next
    if query.out_next < 0:
        endpoint.out_tail = query.out_previous
    else:
        queries[query.out_next].out_previous = query.out_previous
    if not query.decoding:
        endpoint.out_prompts -= 1


@njit(cache=True)
def free_rate(link, nodes):
    """Bytes/s that a new transfer on the link would get: an even share of the card, of what is free on the way."""
    sender = nodes[link.source]
    share = sender.nic / sender.links - (link.bandwidth - link.free)
    return min(share, sender.send_free, link.free, nodes[link.target].receive_free)


@njit(cache=True, inline="always")
def send(index, rate, nodes, links, queries, clock, heap, fifo, kind, at):
    """Start the transfer of a request over a link; `kind` is the event that ends the sending."""
    link, query = links[index], queries[at]
    sender = nodes[link.source]
    tokens = 1 if query.decoding else query.input
    size = tokens * link.bytes_per_token
    if link.sending == 0:
        link.since = clock.now
    link.sending += 1
    link.free -= rate
    sender.send_free -= rate
    nodes[link.target].receive_free -= rate
    sender.out_count -= 1
    if sender.out_count == 0:
        keep_books(sender, clock)
    query.hop += 1
    query.send_link, query.send_rate, query.send_start = index, rate, clock.now
    # Rounding as published: latency goes in and out again.
    duration = link.latency + size / rate
    push(heap, fifo, clock, clock.now + duration - link.latency, kind, at)


@njit(cache=True, inline="always")
def stop_sending(nodes, links, queries, clock, at):
    """The last byte has left: free what the transfer held; returns the link."""
    query = queries[at]
    link = links[query.send_link]
    nodes[link.source].send_free += query.send_rate
    link.free += query.send_rate
    nodes[link.target].receive_free += query.send_rate
    link.sending -= 1
    begin, end = max(query.send_start, clock.window_start), min(clock.now, clock.window_end)
    if end > begin:
        link.bytes += query.send_rate * (end - begin)
        link.messages += 1
    begin = max(link.since, clock.window_start)
    if link.sending == 0 and end > begin:
        link.busy += end - begin
    return query.send_link


@njit(cache=True, inline="always")
def start_granted(here, nodes, links, queries, clock, heap, fifo, kind):
    """Helix: the first of each idle link's queue leaves, at the granted rate; oldest first."""
    endpoint = nodes[here]
    while True:
        oldest, chosen = np.int64(1) << 62, -1
        for index in range(endpoint.first_link, endpoint.first_link + endpoint.links):
            link = links[index]
            if link.head >= 0 and link.sending == 0 and queries[link.head].order < oldest:
                oldest, chosen = queries[link.head].order, index
        if chosen < 0:
            return
        at = dequeue(links[chosen], queries)
        rate = links[chosen].granted
        send(chosen, rate, nodes, links, queries, clock, heap, fifo, kind, at)


@njit(cache=True)
def start_hop_by_hop(here, nodes, links, queries, routes, queues, clock, heap, fifo, kind, mt, scratch):
    """Random and shortest queue (and given routes): at most one request for each usable link, in order of waiting."""
    endpoint = nodes[here]
    first, count = endpoint.first_link, endpoint.links
    usable = 0
    for i in range(count):
        rate = free_rate(links[first + i], nodes)
        links[first + i].granted = rate
        links[first + i].taken = -1 if rate > LEAST_RATE else -2
        if rate > LEAST_RATE:
            usable += 1
    least = np.int64(1) << 62
    if clock.policy == SHORTEST:
        for i in range(count):
            target = links[first + i].target
            length = -1 if target >= len(nodes) - 1 else queues[nodes[target].first_queue].count
            least = min(least, length)
    assigned, prompts = 0, 0
    at = endpoint.out_head
    while at >= 0:
        query = queries[at]
        following = query.out_next
        if clock.policy != ROUTED and not query.decoding:
            prompts += 1
            n = 0
            for i in range(count):
                if links[first + i].taken != -2:
                    scratch[n] = first + i
                    n += 1
            mersenne.shuffle(mt, scratch, n)
            for i in range(n):
                index = scratch[i]
                link = links[index]
                if link.taken >= 0:
                    continue
                if clock.policy == SHORTEST:
                    length = -1 if link.target >= len(nodes) - 1 else queues[nodes[link.target].first_queue].count
                    if length != least:
                        continue
                link.taken = at
                routes[at, query.hop] = index
                query.hops = query.hop + 1
                assigned += 1
                break
        else:
            link = links[routes[at, query.hop]]
            if link.taken == -1:
                link.taken = at
                assigned += 1
        if assigned == usable and (usable <= 1 or clock.policy == ROUTED or prompts == endpoint.out_prompts):
            break
        at = following
    for i in range(count):
        index = first + i
        if links[index].taken >= 0:
            at, rate = links[index].taken, links[index].granted
            unlist(endpoint, queries, at)
            send(index, rate, nodes, links, queries, clock, heap, fifo, kind, at)


@njit(cache=True)
def start_swarm(here, nodes, links, queries, routes, clock, heap, fifo, kind, restart, smoothing):
    """Swarm: learn from the requests just finished, give new prompts to the best link, send one a link.

    `restart` is the event that makes the senders of those requests look again.
    """
    endpoint = nodes[here]
    is_node = here < len(nodes) - 2
    new = endpoint.new_head
    endpoint.new_head = -1
    woken = np.zeros(len(nodes), dtype=np.uint8)
    at = new
    while is_node and at >= 0:
        query = queries[at]
        link = links[query.send_link]
        link.average = smoothing * (clock.now - query.send_start) + (1 - smoothing) * link.average
        woken[link.source] = 1
        at = query.out_next
    at = new
    while at >= 0:
        query = queries[at]
        following = query.out_next
        if not query.decoding:
            best, chosen = np.inf, -1
            for index in range(endpoint.first_link, endpoint.first_link + endpoint.links):
                if links[index].priority < best:
                    best, chosen = links[index].priority, index
            links[chosen].priority += links[chosen].average
            routes[at, query.hop] = chosen
            query.hops = query.hop + 1
        enqueue(links[routes[at, query.hop]], queries, at)
        at = following
    for i in range(endpoint.links):
        index = endpoint.first_link + i
        links[index].granted = free_rate(links[index], nodes)
    for i in range(endpoint.links):
        index = endpoint.first_link + i
        rate = links[index].granted
        if rate > LEAST_RATE and links[index].head >= 0:
            at = dequeue(links[index], queries)
            unlist(endpoint, queries, at)
            send(index, rate, nodes, links, queries, clock, heap, fifo, kind, at)
    for other in range(len(nodes)):
        if woken[other]:
            push(heap, fifo, clock, clock.now, restart, other)
