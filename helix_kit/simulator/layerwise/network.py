"""Transfers under the published rules: one request at a time on a link, chosen by the policy in force.

With Helix's policy a pipeline is fixed at admission and each of its links has a granted rate. With any other policy a
transfer takes what is free on the sender's card, the link and the receiver's card at the moment of sending.

In the functions `here` is the number of an endpoint, `index` that of a link and `at` that of a request.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# Compiled code: numba infers the types.
from __future__ import annotations

import numpy as np

from helix_kit.scheduling.swarm import SMOOTHING
from helix_kit.simulator import mersenne
from helix_kit.simulator.compiled import compiled, inlined
from helix_kit.simulator.events import push
from helix_kit.simulator.node import account_time
from helix_kit.simulator.state import sending_side

GRANTED, ROUTED, RANDOM, SHORTEST, SWARM = range(5)
"""How the next link is chosen: GRANTED and ROUTED follow the request's pipeline, the others choose hop by hop."""
MIN_RATE_BYTES_PER_S = 10.0
"""A link counts as taken while it could give a new transfer no more than this."""
TAKEN, FREE = -2, -1
"""Values of a link's `taken` while the requests of one sender are given out; otherwise it is the request chosen."""


@inlined
def leave_node(state, here, at):
    """A request is done at an endpoint and waits to be sent."""
    requests, clock = state.requests, state.clock
    endpoint, request = state.nodes[here], requests[at]
    request.order = clock.order
    clock.order += 1
    if endpoint.out_count == 0:
        endpoint.out_count = 1
        account_time(endpoint, clock)
    else:
        endpoint.out_count += 1
    if clock.policy == GRANTED:
        enqueue(state.links[state.routes[at, request.hop]], requests, at)
        return
    request.out_previous = endpoint.out_tail
    request.out_next = -1
    if endpoint.out_tail < 0:
        endpoint.out_head = at
    else:
        requests[endpoint.out_tail].out_next = at
    endpoint.out_tail = at
    if endpoint.new_head < 0:
        endpoint.new_head = at
    if not request.decoding:
        endpoint.out_prompts += 1


@inlined
def enqueue(link, requests, at):
    """Put a request at the end of a link's queue."""
    requests[at].next = -1
    if link.head < 0:
        link.head = at
    else:
        requests[link.tail].next = at
    link.tail = at


@inlined
def dequeue(link, requests):
    """Take the first of a link's queue."""
    at = link.head
    link.head = requests[at].next
    if link.head < 0:
        link.tail = -1
    requests[at].next = -1
    return at


@compiled
def unlist(endpoint, requests, at):
    """Take a request out of the endpoint's list of those that wait to leave."""
    request = requests[at]
    if request.out_previous < 0:
        endpoint.out_head = request.out_next
    else:
        requests[request.out_previous].out_next = request.out_next
    if request.out_next < 0:
        endpoint.out_tail = request.out_previous
    else:
        requests[request.out_next].out_previous = request.out_previous
    if not request.decoding:
        endpoint.out_prompts -= 1


@compiled
def free_rate(link, nodes):
    """Bytes/s that a new transfer on the link would get: an even share of the card, of what is free on the way."""
    sender = nodes[link.source]
    share = sender.nic / sender.links - (link.bandwidth - link.free)
    return min(share, sender.send_free, link.free, nodes[link.target].receive_free)


@inlined
def send(state, index, rate, kind, at):
    """Start the transfer of a request over a link; `kind` is the event that ends the sending."""
    nodes, clock = state.nodes, state.clock
    link, request = state.links[index], state.requests[at]
    sender = nodes[link.source]
    tokens = 1 if request.decoding else request.input
    size = tokens * link.bytes_per_token
    if link.sending == 0:
        link.since = clock.now
    link.sending += 1
    link.free -= rate
    sender.send_free -= rate
    nodes[link.target].receive_free -= rate
    sender.out_count -= 1
    if sender.out_count == 0:
        account_time(sender, clock)
    request.hop += 1
    request.send_link, request.send_rate, request.send_start = index, rate, clock.now
    # Rounding as published: latency goes in and out again.
    duration = link.latency + size / rate
    push(state.heap, state.fifo, clock, clock.now + duration - link.latency, kind, at)


@inlined
def stop_sending(state, at):
    """The last byte has left: free what the transfer held; returns the link's number."""
    nodes, clock = state.nodes, state.clock
    request = state.requests[at]
    link = state.links[request.send_link]
    nodes[link.source].send_free += request.send_rate
    link.free += request.send_rate
    nodes[link.target].receive_free += request.send_rate
    link.sending -= 1
    begin, end = max(request.send_start, clock.window_start), min(clock.now, clock.window_end)
    if end > begin:
        link.bytes += request.send_rate * (end - begin)
        link.messages += 1
    begin = max(link.since, clock.window_start)
    if link.sending == 0 and end > begin:
        link.busy += end - begin
    return request.send_link


@inlined
def start_granted(state, here, kind):
    """Helix: the first of each idle link's queue leaves, at the granted rate; oldest first."""
    links, requests = state.links, state.requests
    endpoint = state.nodes[here]
    while True:
        oldest, chosen = np.int64(1) << 62, -1
        for index in range(endpoint.first_link, endpoint.first_link + endpoint.links):
            link = links[index]
            if link.head >= 0 and link.sending == 0 and requests[link.head].order < oldest:
                oldest, chosen = requests[link.head].order, index
        if chosen < 0:
            return
        at = dequeue(links[chosen], requests)
        send(state, chosen, links[chosen].granted, kind, at)


@compiled
def start_hop_by_hop(state, here, kind):
    """Random and shortest queue (and given routes): at most one request for each usable link, in order of waiting."""
    nodes, links, requests, routes = state.nodes, state.links, state.requests, state.routes
    clock, scratch = state.clock, state.scratch
    endpoint = nodes[here]
    first, count = endpoint.first_link, endpoint.links
    usable = 0
    for i in range(count):
        rate = free_rate(links[first + i], nodes)
        links[first + i].granted = rate
        links[first + i].taken = FREE if rate > MIN_RATE_BYTES_PER_S else TAKEN
        if rate > MIN_RATE_BYTES_PER_S:
            usable += 1
    least = np.int64(1) << 62
    if clock.policy == SHORTEST:
        for i in range(count):
            least = min(least, queue_length(state, links[first + i].target))
    assigned, prompts = 0, 0
    at = endpoint.out_head
    while at >= 0:
        request = requests[at]
        following = request.out_next
        if clock.policy != ROUTED and not request.decoding:
            prompts += 1
            n = 0
            for i in range(count):
                if links[first + i].taken != TAKEN:
                    scratch[n] = first + i
                    n += 1
            mersenne.shuffle(state.generator, scratch, n)
            for i in range(n):
                index = scratch[i]
                link = links[index]
                if link.taken >= 0:
                    continue
                if clock.policy == SHORTEST and queue_length(state, link.target) != least:
                    continue
                link.taken = at
                routes[at, request.hop] = index
                request.hops = request.hop + 1
                assigned += 1
                break
        else:
            link = links[routes[at, request.hop]]
            if link.taken == FREE:
                link.taken = at
                assigned += 1
        if assigned == usable and (usable <= 1 or clock.policy == ROUTED or prompts == endpoint.out_prompts):
            break
        at = following
    for i in range(count):
        index = first + i
        if links[index].taken >= 0:
            at, rate = links[index].taken, links[index].granted
            unlist(endpoint, requests, at)
            send(state, index, rate, kind, at)


@inlined
def queue_length(state, endpoint):
    """Requests in front of a node's first layer; -1 for the coordinator, so that it is always the shortest."""
    if endpoint >= sending_side(state.nodes):
        return np.int64(-1)
    return state.queues[state.nodes[endpoint].first_queue].count


@compiled
def start_swarm(state, here, kind, restart):
    """Swarm: learn from the requests just finished, give new prompts to the best link, send one a link.

    `restart` is the event that makes the senders of those requests look again.
    """
    nodes, links, requests, routes, clock = state.nodes, state.links, state.requests, state.routes, state.clock
    endpoint = nodes[here]
    is_node = here < sending_side(nodes)
    new = endpoint.new_head
    endpoint.new_head = -1
    woken = state.scratch
    woken[: len(nodes)] = 0
    at = new
    while is_node and at >= 0:
        request = requests[at]
        link = links[request.send_link]
        link.average = SMOOTHING * (clock.now - request.send_start) + (1 - SMOOTHING) * link.average
        woken[link.source] = 1
        at = request.out_next
    at = new
    while at >= 0:
        request = requests[at]
        following = request.out_next
        if not request.decoding:
            best, chosen = np.inf, -1
            for index in range(endpoint.first_link, endpoint.first_link + endpoint.links):
                if links[index].priority < best:
                    best, chosen = links[index].priority, index
            links[chosen].priority += links[chosen].average
            routes[at, request.hop] = chosen
            request.hops = request.hop + 1
        enqueue(links[routes[at, request.hop]], requests, at)
        at = following
    for i in range(endpoint.links):
        index = endpoint.first_link + i
        links[index].granted = free_rate(links[index], nodes)
    for i in range(endpoint.links):
        index = endpoint.first_link + i
        rate = links[index].granted
        if rate > MIN_RATE_BYTES_PER_S and links[index].head >= 0:
            at = dequeue(links[index], requests)
            unlist(endpoint, requests, at)
            send(state, index, rate, kind, at)
    for other in range(len(nodes)):
        if woken[other]:
            push(state.heap, state.fifo, clock, clock.now, restart, other)
