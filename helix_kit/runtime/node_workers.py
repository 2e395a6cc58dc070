"""The workers of a node: one for each of its GPUs, each with an even share of the node's layers.

Planner, scheduler and records see one node that holds layers [start, end). Its workers form a short pipeline inside
the node, so that its GPUs work on different requests at the same time. Each worker has a page pool of its own. KV pages
are promised per worker, because a request that enters the node in the middle of its range may not use the first GPU.

>>> [worker.name for worker in divide_node("L4x2-0", 10, 15, 2)]
['L4x2-0/0', 'L4x2-0/1']
>>> to_workers((Stage("L4x2-0", 13, 15),), {"L4x2-0": divide_node("L4x2-0", 10, 15, 2)})
(Stage(node='L4x2-0/1', start=13, end=15),)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from helix_kit.flow import Pipeline, Stage


@dataclass(frozen=True, slots=True)
class NodeWorker:
    """Worker `index` of a node that has `count` of them: it holds layers [start, end) on one device."""

    node: str
    index: int
    count: int
    start: int
    end: int

    @property
    def name(self) -> str:
        """The node's name, followed by ``/index`` if the node has several workers (no node's name has a slash)."""
        return self.node if self.count == 1 else f"{self.node}/{self.index}"

    @property
    def num_layers(self) -> int:
        """How many layers the worker holds."""
        return self.end - self.start


NodeWorkers = Mapping[str, tuple[NodeWorker, ...]]
"""Node -> its workers, in the order of their layers."""


def node_of(worker: str) -> str:
    """The node that the worker with this name belongs to.

    >>> node_of("L4x2-0/1"), node_of("A100-40G-0")
    ('L4x2-0', 'A100-40G-0')
    """
    return worker.partition("/")[0]


def divide_node(node: str, start: int, end: int, devices: int) -> tuple[NodeWorker, ...]:
    """Workers that divide layers [start, end) of a node over its devices as evenly as possible.

    With fewer layers than devices, some devices have no worker. When the division leaves a remainder, the last workers
    hold one layer more: the first worker often shares its device with the embedding, and requests that enter in the
    middle of the range need only the last workers.
    """
    count = max(1, min(devices, end - start))
    bounds = [start + (end - start) * i // count for i in range(count + 1)]
    return tuple(NodeWorker(node, i, count, bounds[i], bounds[i + 1]) for i in range(count))


def covering_stages(workers: tuple[NodeWorker, ...], start: int, end: int) -> list[Stage]:
    """The stages of a node's workers that compute its layers [start, end); a stage's `node` is the worker's name."""
    return [
        Stage(worker.name, max(start, worker.start), min(end, worker.end))
        for worker in workers
        if worker.start < end and start < worker.end
    ]


def to_workers(pipeline: Pipeline, workers: NodeWorkers) -> Pipeline:
    """The pipeline of workers that carries out a pipeline of nodes."""
    return tuple(stage for hop in pipeline for stage in covering_stages(workers[hop.node], hop.start, hop.end))


def pages_per_worker(
    workers: tuple[NodeWorker, ...],
    node_pages: int,
    *,
    pages_per_layer: float | None = None,
    devices: int | None = None,
) -> list[int]:
    """KV pages of each worker of a node that has `node_pages` in total.

    A device with more layers than another has less memory left. So a worker gets its device's even share of the node's
    memory, less its own weights, and at most its share by number of layers: a request needs pages in all layers, so
    that more pages in some layers would stay unused.

    Parameters
    ----------
    workers
        The workers of the node.
    node_pages
        KV pages of the node (16 tokens of one layer each).
    pages_per_layer
        Memory of one layer's weights, in pages. None: the workers share one memory, as on a CPU.
    devices
        Devices of the node; None: as many as workers.
    """
    layers = sum(worker.num_layers for worker in workers)
    counts = []
    for worker in workers:
        count = node_pages * worker.num_layers / layers
        if pages_per_layer is not None:
            memory = (node_pages + layers * pages_per_layer) / (devices or len(workers))
            count = min(count, memory - worker.num_layers * pages_per_layer)
        counts.append(max(1, int(count)))
    return counts
