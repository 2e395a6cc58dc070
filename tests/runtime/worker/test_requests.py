"""A worker accepts the items that continue an attempt, and refuses late ones and those that do not lead through it."""

from __future__ import annotations

import array

import pytest

torch = pytest.importorskip("torch")

from helix_kit.cluster import COORDINATOR  # noqa: E402
from helix_kit.runtime.transport.messages import BlockRun, RequestEpoch, RouteStage, SamplingFields, WorkItem  # noqa: E402
from helix_kit.runtime.worker import requests  # noqa: E402
from helix_kit.runtime.worker.kv_cache import PagePool  # noqa: E402
from helix_kit.runtime.worker.requests import HeldRequests  # noqa: E402

ROUTE = [RouteStage("a", 0, 3, "tcp://a"), RouteStage("b", 3, 5, "tcp://b"), RouteStage("c", 5, 6, "tcp://c")]
SAMPLING = SamplingFields(0.5, 7, 0.9, 3)


def first(epoch: int = 0, route: list[RouteStage] = ROUTE) -> WorkItem:
    return WorkItem(1, epoch, 0, 4, False, route, SAMPLING)


@pytest.fixture
def pool() -> PagePool:
    return PagePool(40, 1, 2, torch.float32, torch.device("cpu"))


def table_of(worker: str, start: int, end: int, pool: PagePool) -> HeldRequests:
    return HeldRequests(worker, start, end, 6, pool)


def test_a_route_says_where_rows_come_from_and_go(pool: PagePool) -> None:
    a = table_of("a", 0, 4, pool).accept(first(), is_token_ids=True)
    b = table_of("b", 3, 6, pool).accept(first(), is_token_ids=False)
    c = table_of("c", 4, 6, pool).accept(first(), is_token_ids=False)
    ways = [(r.start, r.end, r.source, r.next_stage) for r in (a, b, c)]
    assert ways == [(0, 3, COORDINATOR, ROUTE[1]), (3, 5, "a", ROUTE[2]), (5, 6, "b", None)]
    assert (b.sampling.temperature, b.sampling.top_k, b.sampling.top_p, b.sampling.seed) == (0.5, 7, 0.9, 3)
    assert b.table.pages.shape == (2, 0)


@pytest.mark.parametrize(
    ("worker", "start", "end", "is_token_ids"),
    [
        ("a", 0, 4, False),  # hidden states for the first layers
        ("b", 3, 6, True),  # token ids for later layers
        ("b", 4, 6, False),  # the route needs layer 3, which the worker lacks
        ("b", 3, 4, False),
        ("d", 3, 5, False),  # not on the route
    ],
)
def test_items_that_do_not_suit_the_worker_are_refused(pool, worker, start, end, is_token_ids) -> None:
    table = table_of(worker, start, end, pool)
    assert table.accept(first(), is_token_ids=is_token_ids) is None
    assert len(table) == 0


@pytest.mark.parametrize("route", [ROUTE[:2], [*ROUTE[:2], RouteStage("b", 5, 6, "tcp://b")]])
def test_routes_that_end_early_or_come_twice_are_refused(pool: PagePool, route: list[RouteStage]) -> None:
    assert table_of("b", 3, 6, pool).accept(first(route=route), is_token_ids=False) is None


def test_an_attempt_starts_with_its_route_and_goes_on_without_gaps(pool: PagePool) -> None:
    table = table_of("a", 0, 4, pool)
    assert table.accept(WorkItem(1, 0, 0, 4, False), is_token_ids=True) is None
    request = table.accept(first(), is_token_ids=True)
    request.received += 4
    assert table.accept(WorkItem(1, 0, 4, 1, True), is_token_ids=True) is request
    for position, is_token_ids in ((3, True), (5, True), (4, False)):
        assert table.accept(WorkItem(1, 0, position, 1, True), is_token_ids=is_token_ids) is None


def test_a_new_attempt_replaces_the_old_one(pool: PagePool) -> None:
    table = table_of("a", 0, 4, pool)
    old = table.accept(first(), is_token_ids=True)
    old.table.grow(pool, 4)
    new = table.accept(first(epoch=1), is_token_ids=True)
    assert new is not old and table.in_order_of_arrival() == [new]
    assert pool.used == 3  # until the coordinator says which of its pages are kept
    table.free(RequestEpoch(1, 0))
    assert pool.used == 0 and table.in_order_of_arrival() == [new]
    assert table.accept(WorkItem(1, 0, 0, 1, True), is_token_ids=True) is None


def test_late_items_of_a_freed_attempt_take_no_pages(pool: PagePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MAX_FREED_EPOCHS", 2)
    table = table_of("a", 0, 4, pool)
    table.accept(first(epoch=1), is_token_ids=True).table.grow(pool, 4)
    table.free(RequestEpoch(1, 0))
    assert len(table) == 1 and pool.used == 3  # only an earlier attempt was freed
    table.free(RequestEpoch(1, 1))
    assert len(table) == 0 and pool.used == 0
    assert table.accept(first(epoch=1), is_token_ids=True) is None
    for other in (7, 8):  # after two more, the epoch of the first is forgotten
        table.free(RequestEpoch(other, 0))
    assert table.accept(first(epoch=1), is_token_ids=True) is not None


def sharing(request: int, position: int, *runs: BlockRun) -> WorkItem:
    """The first item of a request on c, which begins with blocks of others."""
    route = [*ROUTE[:2], RouteStage("c", 5, 6, "tcp://c", list(runs))]
    return WorkItem(request, 0, position, 4, False, route, SAMPLING)


def test_a_request_begins_with_blocks_of_running_and_of_ended_requests(pool: PagePool) -> None:
    table = table_of("c", 4, 6, pool)
    donor = table.accept(first(), is_token_ids=False)
    donor.table.grow(pool, 40)
    pages = donor.table.pages[:, :2].tolist()
    new = table.accept(sharing(2, 32, BlockRun(1, 0, 0, 2)), is_token_ids=False)
    assert new.table.pages.tolist() == pages and (new.received, new.table.num_tokens) == (32, 32)
    assert table.accept(WorkItem(2, 0, 32, 1, True), is_token_ids=False) is new
    assert pool.used == 3
    table.free(RequestEpoch(1, 0), [BlockRun(1, 0, 1, 1)])  # the first block has been kept for another request
    assert (pool.used, pool.idle) == (2, 0)
    table.free(RequestEpoch(2, 0))
    assert (pool.used, pool.idle, pool.free) == (0, 1, 39)
    assert table.accept(sharing(3, 16, BlockRun(1, 0, 1, 1)), is_token_ids=False).table.pages.tolist() == [pages[0][1:]]
    table.free(RequestEpoch(3, 0))
    table.evict([BlockRun(1, 0, 1, 1)])
    assert pool.free == 40


@pytest.mark.parametrize(
    ("position", "run"),
    [(32, BlockRun(1, 0, 0, 1)), (16, BlockRun(1, 1, 0, 1)), (16, BlockRun(9, 0, 0, 1)), (16, BlockRun(1, 0, 3, 1))],
)
def test_blocks_that_do_not_fit_or_are_not_known_are_refused(pool: PagePool, position: int, run: BlockRun) -> None:
    table = table_of("c", 4, 6, pool)
    table.accept(first(), is_token_ids=False).table.grow(pool, 40)
    assert table.accept(sharing(2, position, run), is_token_ids=False) is None
    assert pool.used == 3


def test_the_last_stage_keeps_the_tokens_that_penalties_need(pool: PagePool) -> None:
    sampling = SamplingFields(0.0, 0, 1.0, 0, presence_penalty=1.0, prompt_tokens=3)
    tokens = array.array("i", [7, 8, 7, 9]).tobytes()
    first_item = WorkItem(1, 0, 0, 4, False, ROUTE, sampling, tokens)
    assert table_of("a", 0, 4, pool).accept(first_item, is_token_ids=True).counts is None
    table = table_of("c", 4, 6, pool)
    request = table.accept(first_item, is_token_ids=False)
    request.received += 4
    assert (request.counts.ids.tolist(), request.counts.generated.tolist()) == ([7, 8, 9], [0, 0, 1])
    assert table.accept(WorkItem(1, 0, 4, 1, True), is_token_ids=False) is None
    one = array.array("i", [8]).tobytes()
    assert table.accept(WorkItem(1, 0, 4, 1, True, None, None, one), is_token_ids=False) is request
    assert request.counts.generated.tolist() == [0, 1, 1]
    assert table_of("c", 4, 6, pool).accept(first(), is_token_ids=False).counts is None
