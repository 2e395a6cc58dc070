"""A node with several GPUs: one worker per GPU, each with an even share of the node's layers.

Planner, scheduler and records see one node that holds layers [start, end). Its workers form a short pipeline inside
it, so that its GPUs work on different requests at the same time. Each has a page pool of its own, and pages
are promised per worker: a request that enters the node mid-range may need nothing of the first GPU.

>>> [part.worker for part in parts_of("L4x2-0", 10, 15, 2)]
['L4x2-0/0', 'L4x2-0/1']
>>> expand((Stage("L4x2-0", 13, 15),), {"L4x2-0": parts_of("L4x2-0", 10, 15, 2)})
(Stage(node='L4x2-0/1', start=13, end=15),)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from helix_kit.flow import Pipeline, Stage


@dataclass(frozen=True, slots=True)
class Part:
    """Layers [start, end) of a node on its device `index`, of `count` that are in use."""

    node: str
    index: int
    count: int
    start: int
    end: int

    @property
    def worker(self) -> str:
        """Name of the worker: the node's, with ``/index`` behind it (no node has a slash) if there are several."""
        return self.node if self.count == 1 else f"{self.node}/{self.index}"


Parts = Mapping[str, tuple[Part, ...]]
"""Node -> its workers, in the order of their layers."""


def node_of(worker: str) -> str:
    """The node that a worker belongs to."""
    return worker.partition("/")[0]


def parts_of(node: str, start: int, end: int, devices: int) -> tuple[Part, ...]:
    """Layers [start, end) divided over `devices` as evenly as they go; the last ones get what is over.

    With fewer layers than devices, some devices get none. (What is over goes to the end, since the first layers often
    share their device with the embedding, and requests that enter mid-range need the last ones alone.)
    """
    count = max(1, min(devices, end - start))
    bounds = [start + (end - start) * i // count for i in range(count + 1)]
    return tuple(Part(node, i, count, bounds[i], bounds[i + 1]) for i in range(count))


def covering(parts: tuple[Part, ...], start: int, end: int) -> list[Stage]:
    """The workers that compute layers [start, end) of their node, and which of them each computes."""
    return [
        Stage(part.worker, max(start, part.start), min(end, part.end))
        for part in parts
        if part.start < end and start < part.end
    ]


def expand(pipeline: Pipeline, parts: Parts) -> Pipeline:
    """A pipeline of nodes as the pipeline of workers that carries it out."""
    return tuple(stage for hop in pipeline for stage in covering(parts[hop.node], hop.start, hop.end))


def pages_of_parts(
    parts: tuple[Part, ...], node_pages: int, *, pages_per_layer: float | None = None, devices: int | None = None
) -> list[int]:
    """KV pages of each worker of a node that has `node_pages` altogether.

    `pages_per_layer` is how many pages the weights of one layer take the place of; None where the workers share one
    memory. A device with more layers than another has less memory left: it gets its even part of the node's memory,
    less its own weights, and never more than in proportion to its layers (requests need pages in all of them).
    """
    layers = sum(part.end - part.start for part in parts)
    found = []
    for part in parts:
        own = part.end - part.start
        count = node_pages * own / layers
        if pages_per_layer is not None:
            memory = (node_pages + layers * pages_per_layer) / (devices or len(parts))
            count = min(count, memory - own * pages_per_layer)
        found.append(max(1, int(count)))
    return found
