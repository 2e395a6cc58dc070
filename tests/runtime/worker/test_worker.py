"""The worker's loop by hand: what it answers to each message, what it counts, and when it waits for rows."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from transformers import AutoModelForCausalLM  # noqa: E402

from helix_kit.cluster import COORDINATOR  # noqa: E402
from helix_kit.runtime.spec import WorkerSpec  # noqa: E402
from helix_kit.runtime.transport.messages import (  # noqa: E402
    ForgetMessage,
    FreeMessage,
    Message,
    RequestEpoch,
    RouteStage,
    RunMessage,
    SamplingFields,
    StartingMessage,
    StopMessage,
    TokensMessage,
    WorkItem,
)
from helix_kit.runtime.transport.sockets import DroppedMessages  # noqa: E402
from helix_kit.runtime.weights.checkpoint import Checkpoint  # noqa: E402
from helix_kit.runtime.worker.batching import take_next_step  # noqa: E402
from helix_kit.runtime.worker.model_layers import ModelLayers  # noqa: E402
from helix_kit.runtime.worker.requests import HeldRequests  # noqa: E402
from helix_kit.runtime.worker.returning_rows import MAX_LINGER_S  # noqa: E402
from helix_kit.runtime.worker.worker import Worker  # noqa: E402

GREEDY = SamplingFields(0.0, 0, 1.0, 0)


class FakeOutbox:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Message]] = []
        self.forgotten: list[str] = []

    def send(self, endpoint: str, message: Message) -> None:
        self.sent.append((endpoint, message))

    def forget(self, endpoint: str) -> None:
        self.forgotten.append(endpoint)


class FakeInbox:
    """Hands out what it is given, one batch of messages for each call."""

    def __init__(self, *batches: list[Message]) -> None:
        self.dropped, self.batches = DroppedMessages(), list(batches)

    def receive(self, timeout_s: float = 0.0) -> list[Message]:
        return self.batches.pop(0)


def make_worker(tiny_llama: Path, start: int, end: int, shares_device_with: tuple[str, ...] = ()) -> Worker:
    """A worker with loaded layers and without sockets."""
    spec = WorkerSpec(
        name="a", generation=3, weights=str(tiny_llama), start=start, end=end, num_pages=40,
        coordinator="tcp://coordinator", key_hex="00", shares_device_with=shares_device_with,
    )  # fmt: skip
    worker = Worker(spec)
    worker._inbox = worker._arrivals = FakeInbox()  # type: ignore[assignment]
    worker._outbox = FakeOutbox()  # type: ignore[assignment]
    worker._model = ModelLayers(Checkpoint(tiny_llama), start, end)
    worker._pool = worker._model.new_pool(40)
    worker._overlaps = False
    worker._requests = HeldRequests("a", start, end, worker._model.num_layers, worker._pool)
    worker._returning = worker._rows_that_return()
    return worker


def prompt(request: int, ids: list[int], route: list[RouteStage]) -> RunMessage:
    return RunMessage.of_token_ids([WorkItem(request, 0, 0, len(ids), True, route, GREEDY)], ids)


def step(worker: Worker) -> None:
    waiting = [(request, request.waiting) for request in worker._requests.in_order_of_arrival()]
    worker._finish(*worker._start(take_next_step(waiting, worker._limits), had_to_wait=False))


def test_rows_go_to_the_next_stage_and_are_counted(tiny_llama: Path) -> None:
    worker = make_worker(tiny_llama, 0, 4)
    route = [RouteStage("a", 0, 4, "tcp://a"), RouteStage("b", 4, 6, "tcp://b")]
    worker._take(prompt(1, [5, 6, 7], route))
    worker._take(prompt(2, [9], route))
    step(worker)
    [(endpoint, message)] = worker._outbox.sent
    assert endpoint == "tcp://b" and message.shape == (4, 64)
    assert [item.request for item in message.items] == [2, 1]  # the request of one row first, as a decode
    assert all(item.route == route for item in message.items)
    counters = worker._counters()
    assert (counters.requests, counters.steps, counters.prefill_tokens, counters.decode_tokens) == (2, 1, 3, 1)
    assert counters.pages_used == counters.pages_peak == 8
    [(sender, (spent_s, chunks))] = worker._hops.items()
    assert sender == COORDINATOR and chunks == 2 and spent_s > 0
    assert worker._returning.wait_s() == 0


def test_the_last_stage_sends_tokens_and_waits_for_the_next_rows(tiny_llama: Path) -> None:
    worker = make_worker(tiny_llama, 0, 6)
    route = [RouteStage("a", 0, 6, "tcp://a")]
    worker._take(prompt(1, [5, 6, 7], route))
    step(worker)
    [(endpoint, message)] = worker._outbox.sent
    assert endpoint == "tcp://coordinator" and isinstance(message, TokensMessage)
    assert (message.node, message.generation) == ("a", 3)
    [token] = message.tokens
    assert (token.request, token.epoch, token.position) == (1, 0, 3)
    assert 0 < worker._returning.wait_s() <= MAX_LINGER_S
    worker._take(RunMessage.of_token_ids([WorkItem(1, 0, 3, 1, True)], [token.token]))
    assert worker._returning.wait_s() == 0


def test_a_freed_request_has_no_pages_and_its_late_rows_are_stale(tiny_llama: Path) -> None:
    worker = make_worker(tiny_llama, 0, 6)
    worker._take(prompt(1, [5, 6, 7], [RouteStage("a", 0, 6, "tcp://a")]))
    step(worker)
    worker._outbox.sent.clear()
    worker._take(FreeMessage([RequestEpoch(1, 0), RequestEpoch(8, 2)]))  # of request 8 nothing has arrived yet
    assert worker._outbox.sent == []  # the coordinator promises the pages again without an answer
    assert worker._pool.used == 0 and worker._returning.wait_s() == 0
    worker._take(RunMessage.of_token_ids([WorkItem(1, 0, 3, 1, True)], [5]))
    worker._take(prompt(8, [5, 6], [RouteStage("a", 0, 6, "tcp://a")]))
    assert worker._counters().stale == 2 and worker._counters().requests == 0


def test_messages_that_do_not_suit_a_worker_are_dropped(tiny_llama: Path) -> None:
    worker = make_worker(tiny_llama, 0, 6)
    item = WorkItem(1, 0, 0, 2, True, [RouteStage("a", 0, 6, "tcp://a")], GREEDY)
    too_narrow = RunMessage([item], "float32", (2, 3), memoryview(bytes(24)))
    two_dimensional_ids = RunMessage([item], "int32", (2, 64), memoryview(bytes(512)))
    for message in (too_narrow, two_dimensional_ids, TokensMessage("a", 0, [])):
        worker._take(message)
    assert worker._counters().malformed == 3 and worker._counters().requests == 0
    worker._take(ForgetMessage("tcp://b"))
    assert worker._outbox.forgotten == ["tcp://b"]


def test_the_coordinator_hears_what_a_start_is_at(tiny_llama: Path) -> None:
    worker = make_worker(tiny_llama, 0, 6)
    worker._say_captured(20, 57)
    assert worker._outbox.sent == [("tcp://coordinator", StartingMessage("a", 3, "20 of 57 CUDA graphs captured"))]


def test_a_start_with_flashinfer_says_where_its_kernels_are_kept_and_how_long_they_took(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seconds stand beside the graphs that are captured next, since a start shows only its last line."""
    monkeypatch.setenv("FLASHINFER_WORKSPACE_BASE", "/scratch")
    clock = [100.0]
    monkeypatch.setattr("helix_kit.runtime.worker.worker.time.monotonic", lambda: clock[0])

    class Model:
        attention = "flashinfer"

        def warm_up(self, pool, max_decodes=0, progress=None) -> None:
            clock[0] += 70.0
            if max_decodes:
                progress(3, 9)

    worker = make_worker(tiny_llama, 0, 6)
    worker._warm_up(Model())
    said = [message.doing for _, message in worker._outbox.sent if isinstance(message, StartingMessage)]
    assert "/scratch/.cache/flashinfer keeps them" in said[0]
    assert said[1] == "FlashInfer's kernels were ready after 70 s; 3 of 9 CUDA graphs captured"


def test_the_loop_runs_until_it_is_told_to_stop(tiny_llama: Path) -> None:
    worker = make_worker(tiny_llama, 0, 6)
    route = [RouteStage("a", 0, 6, "tcp://a")]
    worker._arrivals = FakeInbox([prompt(1, [5, 6, 7], route)], [], [prompt(2, [9], route), StopMessage()])  # type: ignore[assignment]
    worker._serve()
    assert [len(message.tokens) for _, message in worker._outbox.sent] == [1]
    assert worker._requests.has_waiting_rows()  # the rows that came with the stop were not run


def test_rows_that_come_before_their_pages_are_free_wait_for_them(tiny_llama: Path) -> None:
    """Another worker's rows may overtake the coordinator's message that frees what they have been promised."""
    worker = make_worker(tiny_llama, 4, 6)
    worker._pool = worker._model.new_pool(4)  # 20 tokens in two layers take all of it
    worker._requests = HeldRequests("a", 4, 6, 6, worker._pool)
    route = [RouteStage("b", 0, 4, "tcp://b"), RouteStage("a", 4, 6, "tcp://a")]
    hidden = memoryview(torch.randn(20, 64, generator=torch.Generator().manual_seed(1)).numpy()).cast("B")
    first, second = (
        RunMessage([WorkItem(request, 0, 0, 20, True, route, GREEDY)], "float32", (20, 64), hidden)
        for request in (1, 2)
    )
    batches, sent = [[first], [second], [], [FreeMessage([RequestEpoch(1, 0)])], [StopMessage()]], []

    class CountingInbox(FakeInbox):
        def receive(self, timeout_s: float = 0.0) -> list[Message]:
            sent.append(len(worker._outbox.sent))
            return super().receive(timeout_s)

    worker._arrivals = CountingInbox(*batches)  # type: ignore[assignment]
    worker._serve()
    assert sent == [0, 1, 1, 1, 2]
    tokens = [token for _, message in worker._outbox.sent for token in message.tokens]
    assert [token.request for token in tokens] == [1, 2] and tokens[0].token == tokens[1].token


@pytest.mark.parametrize("overlaps", [False, True])
def test_a_step_may_begin_before_the_one_before_has_been_sent(tiny_llama: Path, overlaps: bool) -> None:
    """As on a GPU: tokens, their order and the pages are the same, and a freed request gets no further row."""
    worker = make_worker(tiny_llama, 0, 6)
    worker._overlaps = overlaps
    route = [RouteStage("a", 0, 6, "tcp://a")]
    first = RunMessage.of_token_ids([WorkItem(1, 0, 0, 3, True, route, GREEDY, None, 40)], [5, 6, 7])
    second = RunMessage.of_token_ids([WorkItem(2, 0, 0, 1, True, route, GREEDY, None, 3)], [9])
    free = FreeMessage([RequestEpoch(1, 0)])
    worker._arrivals = FakeInbox([first], [second], [], [], [], [free], [], [], [StopMessage()])  # type: ignore[assignment]
    worker._serve()
    sent = [message for _, message in worker._outbox.sent if isinstance(message, TokensMessage)]
    tokens: dict[int, list[int]] = {1: [], 2: []}
    for message in sent:
        for token in message.tokens:
            tokens[token.request].append(token.token)
            assert token.position == (3 if token.request == 1 else 1) + len(tokens[token.request]) - 1
    whole = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    for request, ids in ((1, [5, 6, 7]), (2, [9])):
        count = len(tokens[request])
        answer = whole.generate(torch.tensor([ids]), max_new_tokens=count, min_new_tokens=count, do_sample=False)
        assert tokens[request] == answer[0, len(ids) :].tolist()
    assert len(tokens[2]) == 3 and 5 <= len(tokens[1]) <= 6
    assert not worker._requests.has_waiting_rows()


ROUTE = [RouteStage("a", 0, 4, "tcp://a"), RouteStage("b", 4, 6, "tcp://b")]


def decode_prompt(request: int, ids: list[int], decode_until: int) -> RunMessage:
    """A prompt of a request whose tokens come from its last stage up to this position."""
    item = WorkItem(request, 0, 0, len(ids), True, ROUTE, GREEDY, decode_until=decode_until)
    return RunMessage.of_token_ids([item], ids)


def test_a_first_stage_leaves_a_shared_gpu_to_the_others(tiny_llama: Path) -> None:
    worker = make_worker(tiny_llama, 0, 4, shares_device_with=("b",))
    worker._take(decode_prompt(1, [5, 6, 7], 9))
    worker._take(decode_prompt(2, [9, 4], 9))
    step(worker)
    assert worker._returning.wait_s() > 0
    worker._take(RunMessage.of_token_ids([WorkItem(1, 0, 3, 1, True)], [8]))
    assert worker._returning.wait_s() > 0  # the other request's row is still at the other stage
    worker._take(FreeMessage([RequestEpoch(2, 0)]))
    assert worker._returning.wait_s() == 0


@pytest.mark.parametrize(
    ("mates", "decode_until"),
    [(("b",), 3), (("c",), 9), ((), 9)],
    ids=["the request ends", "the other stage has its own GPU", "no other worker on the GPU"],
)
def test_a_first_stage_does_not_wait_for_rows_that_stay_away(
    tiny_llama: Path, mates: tuple[str, ...], decode_until: int
) -> None:
    worker = make_worker(tiny_llama, 0, 4, shares_device_with=mates)
    worker._take(decode_prompt(1, [5, 6, 7], decode_until))
    step(worker)
    assert worker._returning.wait_s() == 0


def test_rows_that_never_come_back_hold_up_a_worker_once(tiny_llama: Path) -> None:
    worker = make_worker(tiny_llama, 0, 4, shares_device_with=("b",))
    worker._take(decode_prompt(1, [5, 6, 7], 9))
    step(worker)
    worker._returning._until_s = time.monotonic()
    assert worker._returning.wait_s() == 0
    worker._take(decode_prompt(2, [9, 4], 2))
    step(worker)
    assert worker._returning.wait_s() == 0
