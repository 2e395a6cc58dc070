"""Maximum flows of small networks, compiled, for searches that ask for hundreds of thousands of them.

A network is a square matrix of capacities. A flow through two dozen vertices takes a few microseconds.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# Compiled code: numba infers the types.

from __future__ import annotations

from numba import njit


@njit(cache=True)
def dense_flow(network, level, queue, at, path):
    """The value of a maximum flow from the last vertex but one to the last (Dinic).

    Parameters
    ----------
    network
        Capacities in whole numbers, shape (vertices, vertices). It keeps what is left of them.
    level, queue, at, path
        Room for one whole number for each vertex.

    Returns
    -------
    int
        The value.
    """
    size = len(network)
    source, sink = size - 2, size - 1
    total = 0
    while True:
        level[:] = -1
        level[source] = 0
        queue[0] = source
        first, last = 0, 1
        while first < last and level[sink] < 0:
            vertex = queue[first]
            first += 1
            for other in range(size):
                if network[vertex, other] > 0 and level[other] < 0:
                    level[other] = level[vertex] + 1
                    queue[last] = other
                    last += 1
        if level[sink] < 0:
            return total
        at[:] = 0
        path[0] = source
        depth = 0
        while True:
            vertex = path[depth]
            if vertex == sink:
                amount = network[path[0], path[1]]
                for k in range(1, depth):
                    amount = min(amount, network[path[k], path[k + 1]])
                back = depth
                for k in range(depth - 1, -1, -1):
                    network[path[k], path[k + 1]] -= amount
                    network[path[k + 1], path[k]] += amount
                    if network[path[k], path[k + 1]] == 0:
                        back = k
                total += amount
                depth = back
                continue
            while at[vertex] < size and not (
                network[vertex, at[vertex]] > 0 and level[at[vertex]] == level[vertex] + 1
            ):
                at[vertex] += 1
            if at[vertex] < size:
                depth += 1
                path[depth] = at[vertex]
            elif depth == 0:
                break
            else:
                depth -= 1
                at[path[depth]] += 1
