"""Measuring servers: ours, whose records agree, and stubs that answer, die, hang, refuse or send garbage."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import stub_server
from stub_server import HEAD, Stub, answer, chunk, event

from helix_kit import Workload
from helix_kit.bench import BenchOptions, bench
from helix_kit.errors import HelixKitError, InputError
from helix_kit.metrics import RequestTimes

FIVE = Workload.of([(0.01 * i, 20, 4) for i in range(5)])


def test_a_good_server():
    with Stub() as stub:
        run = bench(stub.url, Workload.of([(0.01 * i, 32, 4) for i in range(8)]), BenchOptions(warmup=1))
    summary = run.summary()
    assert (summary["finished"], summary["failed"], summary["model"], summary["loop"]) == (8, 0, "stub", "open")
    assert [r.tokens_generated for r in run.records] == [4] * 8
    # The stub counts 1.5 tokens a word and two around: 20 words are 32 tokens, which the two first requests tell.
    assert [r.request.input_tokens for r in run.records] == [32] * 8
    assert [len(b["prompt"].split()) for b in stub.bodies] == [16, 144, *[20] * 9]
    assert all(b["stream"] and b["ignore_eos"] and b["model"] == "stub" for b in stub.bodies)
    assert stub.connections < 8, "connections are used again"
    assert all(r.request.arrival_s == pytest.approx(0.01 * i) for i, r in enumerate(run.records))


def test_chats_tokens_and_texts():
    with Stub() as stub:
        bench(stub.url, FIVE[:1], BenchOptions(chat=True, warmup=0, extra_body={"top_k": 1}, ignore_eos=False))
        bench(stub.url, FIVE[:1], BenchOptions(prompts="tokens", vocab_size=50, warmup=0, api_key="x"))
    chat, tokens = stub.bodies
    assert chat["messages"][0]["role"] == "user" and chat["top_k"] == 1 and "ignore_eos" not in chat
    assert len(tokens["prompt"]) == 20 and all(3 <= t < 50 for t in tokens["prompt"])


def test_a_closed_loop_has_so_many_open():
    now = {"open": 0, "most": 0}

    async def counted(body, writer):
        now["open"] += 1
        now["most"] = max(now["most"], now["open"])
        await asyncio.sleep(0.01)
        await stub_server.prompt_answer(body, writer)
        now["open"] -= 1

    with Stub(counted) as stub:
        run = bench(
            stub.url, Workload.of([(100.0 * i, 5, 2) for i in range(12)]), BenchOptions(concurrency=3, warmup=0)
        )
    assert now["most"] == 3 and run.summary()["finished"] == 12 and run.summary()["concurrency"] == 3


async def refuse(_, writer):
    text = b'{"error": {"message": "the queue is full"}}'
    writer.write(b"HTTP/1.1 429 Too Many\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))


async def die_before(_, writer):
    writer.close()


async def die_within(_, writer):
    writer.write(HEAD + answer(4, 9)[0])
    await writer.drain()
    writer.close()


async def end_early(_, writer):
    writer.write(HEAD + answer(4, 9)[0] + b"0\r\n\r\n")


async def hang(_, writer):
    writer.write(HEAD + answer(4, 9)[0])
    await asyncio.sleep(60)


async def garbage(_, writer):
    writer.write(b"\x00\xffgarbage\r\n\r\n more")
    writer.close()


async def garbage_within(_, writer):
    writer.write(HEAD + chunk(b"data: {]\n\n"))


async def no_chunks(_, writer):
    writer.write(HEAD + b"zz\r\nhello\r\n")


async def no_stream(_, writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")


async def error_within(_, writer):
    writer.write(HEAD + event({"error": {"message": "no pipeline is left"}}))


@pytest.mark.parametrize(
    "handler, outcome, words",
    [
        (refuse, "rejected", "HTTP 429: the queue is full"),
        (die_before, "failed", "the connection ended before an answer"),
        (die_within, "failed", "the connection ended before the answer was complete"),
        (end_early, "failed", "the stream ended before the answer"),
        (hang, "failed", "no answer within 0.3 s"),
        (garbage, "failed", "no HTTP"),
        (garbage_within, "failed", "an event that is no JSON"),
        (no_chunks, "failed", "a chunk whose length is no number"),
        (no_stream, "failed", "an answer that is no stream"),
        (error_within, "failed", "error in the stream: no pipeline is left"),
    ],
)
def test_whatever_goes_wrong_is_counted(handler, outcome, words):
    calls = []

    async def second_is_good(body, writer):
        calls.append(1)
        await (stub_server.prompt_answer if len(calls) == 2 else handler)(body, writer)

    with Stub(second_is_good) as stub:
        options = BenchOptions(warmup=0, timeout_s=0.3, concurrency=1)
        run = bench(stub.url, FIVE[:3], options)
    assert [r.outcome for r in run.records] == [outcome, "finished", outcome]
    assert words in run.records[0].reason and run.records[0].token_times_s == []
    summary = run.summary()
    assert summary[outcome] == 2 and sum(summary["reasons"].values()) == 2
    assert summary["output_tokens_per_s"] * summary["window_s"][1] == pytest.approx(4)


def test_a_server_that_is_not_there():
    with Stub() as stub:
        url = stub.url
    with pytest.raises(HelixKitError, match="does not answer"):
        bench(url, FIVE)
    run = bench(url, FIVE[:2], BenchOptions(model="any", warmup=0))
    assert run.summary()["failed"] == 2 and "no connection" in run.records[0].reason


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://host:port"])
def test_no_url(url):
    with pytest.raises(InputError, match="url"):
        bench(url, FIVE)


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"warmup": -1}, {"timeout_s": 0}, {"prompts": "words"},
                                   {"prompts": "tokens", "chat": True}])  # fmt: skip
def test_wrong_options(wrong):
    with pytest.raises(InputError):
        BenchOptions(**wrong)


@pytest.fixture(scope="module")
def both_sides(tmp_path_factory):
    """Times of the same requests as the client has them and as the engine has them, and the gaps between tokens.

    Client and server share this process and its clock.
    """
    pytest.importorskip("torch")
    from helix_kit.runtime import serve
    from helix_kit.runtime.api import start_server
    from helix_kit.runtime.weights.tiny import tiny_checkpoint, tiny_plan

    weights = tiny_checkpoint(tmp_path_factory.mktemp("weights") / "tiny")
    plan = tiny_plan(weights, {"a": (0, 6)}, step_ms=2.0)
    load = Workload.of([(0.1 * i, 6, 8) for i in range(10)])
    with serve(plan, weights, launcher="inproc", pace=True) as engine, start_server(engine) as server:
        own, submit = [], engine.submit

        def recorded(*arguments, **keywords):
            own.append(submit(*arguments, **keywords))
            return own[-1]

        engine.submit = recorded
        run = bench(server.url, load, BenchOptions(prompts="tokens", vocab_size=engine.vocab_size, warmup=0))
    assert run.summary()["finished"] == 10, run.summary()["reasons"]
    gaps = [np.concatenate([np.diff(r.token_times_s) for r in records])
            for records in (run.records, [handle.record for handle in own])]  # fmt: skip
    return run.times, RequestTimes.of([handle.record for handle in own]), gaps


def test_the_client_has_each_token_of_our_server_after_the_server(both_sides):
    ours, theirs, gaps = both_sides
    assert (ours.output_tokens == theirs.output_tokens).all() and (ours.output_tokens == 8).all()
    assert (ours.ttft_s >= theirs.ttft_s).all()
    assert len(gaps[0]) == len(gaps[1]) == 70


@pytest.mark.slow
def test_client_and_server_agree_within_5_ms(both_sides):
    """For a machine without other work: other programs hold back tokens. They hold back a quarter of them least."""
    ours, theirs, gaps = both_sides
    for mine, its in ((ours.ttft_s, theirs.ttft_s), (ours.tpot_s, theirs.tpot_s), gaps):
        assert np.quantile(np.abs(mine - its), 0.25) < 0.005
