"""Blocks that requests share on a worker: no page is lost or given out twice, whatever is kept and evicted."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from helix_kit.flow import Stage  # noqa: E402
from helix_kit.runtime.coordinator.admission import PageLedger  # noqa: E402
from helix_kit.runtime.coordinator.block_numbers import block_hashes  # noqa: E402
from helix_kit.runtime.transport.messages import BlockRun, RouteStage  # noqa: E402
from helix_kit.runtime.worker.kept_blocks import KeptBlocks  # noqa: E402
from helix_kit.runtime.worker.kv_cache import PagePool  # noqa: E402

PAGES = 60
steps = st.lists(
    st.tuples(
        st.sampled_from(["start", "start", "end", "evict"]), st.integers(0, 30), st.integers(1, 3), st.integers(0, 80)
    ),
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(steps)
def test_pages_are_those_that_attempts_use_or_keep(actions: list[tuple[str, int, int, int]]) -> None:
    """A plain set of pages for each attempt, and for each ended one the pages of its kept blocks."""
    pool = PagePool(PAGES, 1, 2, torch.float32, torch.device("cpu"))
    blocks = KeptBlocks(pool)
    running: dict[int, tuple[int, object, int]] = {}  # request -> (first layer, table, blocks shared)
    kept: dict[tuple[int, int], set[int]] = {}  # (request, place) -> pages
    for number, (what, which, count, tokens) in enumerate(actions):
        if what == "start":
            start, shared = which % 2, []
            donors = [r for r, (first, table, _) in running.items() if first <= start and table.pages.shape[1] >= count]
            if donors and tokens % 2:
                shared = [BlockRun(donors[which % len(donors)], 0, 0, count)]
            if pool.free < 3 * (tokens // 16 + 1):
                continue
            table = blocks.new_table(number, 0, RouteStage("w", start, 3, "tcp://w", shared))
            assert table is not None and table.num_tokens == 16 * sum(run.count for run in shared)
            table.grow(pool, tokens + 1)
            running[number] = (start, table, sum(run.count for run in shared))
        elif what == "end" and running:
            request = list(running)[which % len(running)]
            _, table, shared_blocks = running.pop(request)
            full = min(shared_blocks + count, table.num_tokens // 16)
            places = range(shared_blocks, full) if tokens % 3 else range(0)
            kept |= {(request, place): set(table.pages[:, place].tolist()) for place in places}
            blocks.end(request, 0, [BlockRun(request, 0, place, 1) for place in places])
        elif what == "evict" and kept:
            key = list(kept)[which % len(kept)]
            in_use = {page for _, table, _ in running.values() for page in table.pages.ravel().tolist()}
            if not kept[key] & in_use:  # the coordinator evicts only what no request uses
                del kept[key]
                blocks.evict(BlockRun(key[0], 0, key[1], 1))
        in_use = {page for _, table, _ in running.values() for page in table.pages.ravel().tolist()}
        idle = set().union(*kept.values()) - in_use
        assert (pool.used, pool.idle, pool.free) == (len(in_use), len(idle), PAGES - len(in_use) - len(idle))
        free = set(pool.take(pool.free))
        assert not free & (in_use | idle)
        pool.give_back(np.array(sorted(free), dtype=np.int64))
    for request in list(running):
        blocks.end(request, 0, [])
    for request, place in kept:
        blocks.evict(BlockRun(request, 0, place, 1))
    assert pool.free == PAGES and not blocks._attempts


WINDOW, CHUNK = 24, 20
LAYERS = {"a": (0, (0, WINDOW, 0, WINDOW)), "b": (4, (WINDOW, 0)), "c": (2, (0, WINDOW, WINDOW, 0))}
"""Worker -> its first layer, and the window of each of its layers."""
PIPELINES = ((Stage("a", 0, 4), Stage("b", 4, 6)), (Stage("a", 0, 3), Stage("c", 3, 6)))


class Worker:
    """A worker's pages. In each slot stands what was computed there: a number for a layer and all tokens so far."""

    def __init__(self, name: str, capacity: int) -> None:
        self.start, self.windows = LAYERS[name]
        self.pool = PagePool(capacity, 1, 1, torch.float64, torch.device("cpu"))
        self.blocks = KeptBlocks(self.pool, self.start, self.windows)
        self.slots = self.pool.keys.view(-1).numpy()


class Served:
    """A request that runs on all of its workers."""

    def __init__(self, number: int, tokens: list[int], prompt: int, pipeline: tuple[Stage, ...]) -> None:
        self.number, self.tokens, self.prompt, self.pipeline = number, tokens, prompt, pipeline
        self.tables: dict[str, object] = {}
        self.position = self.known = 0
        """Where the workers are, and where the coordinator knows them to be."""


class World:
    """A ledger and workers that do what it says; each page is checked when it is read."""

    def __init__(self, capacity: dict[str, int]) -> None:
        self.ledger = PageLedger()
        self.ledger.chunk_tokens = CHUNK
        self.workers = {name: Worker(name, pages) for name, pages in capacity.items()}
        for name, worker in self.workers.items():
            self.ledger.add_worker(name, worker.pool.num_pages, worker.start, worker.windows)
        self.names: dict[tuple[int, tuple[int, ...]], int] = {}
        self.hits = self.evicted_windows = 0

    def name_of(self, layer: int, tokens: list[int]) -> int:
        return self.names.setdefault((layer, tuple(tokens)), len(self.names) + 1)

    def tell_evicted(self) -> None:
        for name, runs in self.ledger.take_evicted().items():
            for run in runs:
                self.evicted_windows += run.part == 2
                self.workers[name].blocks.evict(run)

    def start(self, request: Served) -> bool:
        prompt = request.tokens[: request.prompt]
        self.ledger.look_up(block_hashes(prompt[:-1]), len(prompt) // 16)
        shared = self.ledger.promise(request.number, 0, len(request.tokens), request.pipeline)
        if shared is None:
            return False
        self.tell_evicted()
        for stage in request.pipeline:
            keep = self.ledger.keeps(stage.node, request.number, 0)
            route = RouteStage(stage.node, stage.start, stage.end, "tcp://w", shared[stage.node], *keep)
            table = self.workers[stage.node].blocks.new_table(request.number, 0, route)
            assert table is not None
            request.tables[stage.node] = table
        [request.position] = {table.num_tokens for table in request.tables.values()}
        self.hits += request.position > 0
        while request.position < request.prompt:
            self.step(request, min(CHUNK, request.prompt - request.position))
        request.known = request.prompt
        self.ledger.add_computed(request.number, 0, block_hashes(prompt))
        self.tell_evicted()
        return True

    def step(self, request: Served, rows: int) -> None:
        """Compute rows on all stages: write theirs, and look at all that they see."""
        begin, end = request.position, request.position + rows
        for stage in request.pipeline:
            worker, table = self.workers[stage.node], request.tables[stage.node]
            table.grow(worker.pool, rows)
            for layer in range(stage.start, stage.end):
                window = worker.windows[layer - worker.start] or end
                first = max(0, begin - window + 1)
                names = np.array([self.name_of(layer, request.tokens[: t + 1]) for t in range(first, end)])
                slots = table.slots(first, end)[layer - stage.start]
                worker.slots[slots[begin - first :]] = names[begin - first :]
                assert (worker.slots[slots] == names).all()
            table.trim(worker.pool)
        request.position = end

    def hear(self, request: Served, position: int) -> None:
        """The coordinator hears that the workers have come so far."""
        while request.known < position:
            request.known += 1
            self.ledger.advance(request.number, 0, request.known)

    def end(self, request: Served) -> None:
        self.ledger.add_computed(request.number, 0, block_hashes(request.tokens[: request.known]))
        self.tell_evicted()
        kept = self.ledger.leave(request.number, 0)
        for stage in request.pipeline:
            self.workers[stage.node].blocks.end(request.number, 0, kept.get(stage.node, []))

    def check(self) -> None:
        for name, worker in self.workers.items():
            pages = self.ledger._kv.workers[name]
            assert worker.pool.num_pages - worker.pool.free <= pages.private + pages.held <= pages.capacity
            assert 0 <= pages.idle <= pages.held and pages.private >= 0


@pytest.mark.parametrize("capacity", [{"a": 60, "b": 30, "c": 50}, {"a": 160, "b": 90, "c": 130}])
@pytest.mark.parametrize("shares", [True, False])
def test_pages_of_windows_are_returned_and_none_is_lost(capacity: dict[str, int], shares: bool) -> None:
    """Every row reads what it sees as it was written, whatever others return, take, keep and evict."""
    hits = windows = rejected = 0
    for seed in range(5):
        rng, world, running = random.Random(seed), World(capacity), {}
        for number in range(60):
            place = rng.randrange(4)
            if place in running:
                request = running[place]
                for _ in range(min(rng.randrange(30), len(request.tokens) - request.position)):
                    world.step(request, 1)
                # Workers go on by themselves: the coordinator may know less.
                world.hear(request, max(request.known, request.position - rng.randrange(6)))
                if request.position == len(request.tokens) or rng.random() < 0.3:
                    world.end(running.pop(place))
            else:
                prefix = [1 + rng.randrange(2)] * 16 * rng.randrange(5) if shares else []
                prompt = prefix + [rng.randrange(3, 9) for _ in range(rng.randrange(1, 40))]
                tokens = prompt + [rng.randrange(3, 9) for _ in range(rng.randrange(1, 70))]
                request = Served(number, tokens, len(prompt), PIPELINES[rng.randrange(2)])
                if world.start(request):
                    running[place] = request
                else:
                    rejected += 1
            world.check()
        for request in running.values():
            world.end(request)
        for name, worker in world.workers.items():
            pages = world.ledger._kv.workers[name]
            assert (worker.pool.used, worker.pool.idle) == (0, pages.held)
            assert pages.private == 0 and pages.idle == pages.held
        hits, windows = hits + world.hits, windows + world.evicted_windows
        world.ledger.clear()
        world.tell_evicted()
        assert all(worker.pool.free == worker.pool.num_pages for worker in world.workers.values())
    assert bool(hits) == shares
    assert capacity["a"] > 60 or (rejected > 0 and windows > 0)
