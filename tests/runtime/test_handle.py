"""Reading an answer as it comes."""

from __future__ import annotations

import asyncio
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

torch = pytest.importorskip("torch")

from helix_kit.runtime import Completion, Engine, Handle, RequestFailedError  # noqa: E402
from helix_kit.runtime.text import TextStream  # noqa: E402
from helix_kit.workload.request import Request, RequestRecord  # noqa: E402


def test_stream_gives_the_same_text(engine: Engine) -> None:
    whole = engine.generate("w9 w8", max_new_tokens=10)
    handle = engine.submit("w9 w8", max_new_tokens=10)
    pieces = list(handle)
    assert "".join(p.text for p in pieces) == handle.result().text == whole.text
    assert [p.token_id for p in pieces if p.token_id is not None] == whole.token_ids


def test_async_stream(engine: Engine) -> None:
    async def read() -> list[int]:
        handles = [engine.submit([5, 6, n], max_new_tokens=8, ignore_eos=True) for n in (7, 8)]

        async def one(handle) -> list[int]:
            return [piece.token_id async for piece in handle if piece.token_id is not None]

        first, second = await asyncio.gather(*(one(h) for h in handles))
        return first + second

    expected = engine.generate([[5, 6, 7], [5, 6, 8]], max_new_tokens=8, ignore_eos=True)
    # In a thread of its own: a browser test that ran before leaves an event loop in this one.
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(asyncio.run, read()).result() == expected[0].token_ids + expected[1].token_ids


class Letters:
    """A codec whose tokens are letters."""

    def decode(self, ids) -> str:
        return "".join(map(chr, ids))

    def has_text(self, token_id: int) -> bool:
        return True

    def is_byte(self, token_id: int) -> bool:
        return False


def finished(token_ids: list[int]) -> tuple[RequestRecord, Completion]:
    record = RequestRecord(Request(0, 0.0, 1, len(token_ids)), outcome="finished")
    return record, Completion("", token_ids, 1, "length", (), record)


def test_text_is_made_when_it_is_read_and_held_back_text_comes_at_the_end() -> None:
    handle = Handle(lambda _: None, TextStream(Letters(), ["xyz"]))  # type: ignore[arg-type]
    for letter in "abx":
        handle.add_token(ord(letter))
    assert not handle.done
    handle.finish(*finished([97, 98, 120]))
    # The last letter may be the beginning of the stop string, so that it is held back until the end.
    assert [(piece.token_id, piece.text) for piece in handle] == [(97, "a"), (98, "b"), (120, ""), (None, "x")]
    assert handle.result().text == "abx"
    assert [piece.text for piece in handle] == ["a", "b", "", "x"]  # read again from the beginning


def test_a_waiting_reader_gets_each_token_as_it_comes() -> None:
    handle, seen = Handle(lambda _: None), queue.SimpleQueue()
    reader = threading.Thread(target=lambda: [seen.put(piece.token_id) for piece in handle])
    reader.start()
    for token in (5, 6, 7):
        handle.add_token(token)
        assert seen.get(timeout=10) == token
    handle.finish(*finished([5, 6, 7]))
    reader.join(10)
    assert not reader.is_alive()


def test_a_failed_request_raises_wherever_it_is_read() -> None:
    handle = Handle(lambda _: None)
    with pytest.raises(TimeoutError):
        handle.result(timeout_s=0.01)
    record = RequestRecord(Request(0, 0.0, 1, 1), outcome="failed")
    handle.finish(record, RequestFailedError("no pipeline is left", "no_pipeline"))
    assert handle.done and handle.record is record
    for read in (handle.result, lambda: list(handle)):
        with pytest.raises(RequestFailedError, match="no pipeline is left") as caught:
            read()
        assert caught.value.code == "no_pipeline"


def test_cancel_asks_for_this_handle() -> None:
    asked: list[Handle] = []
    handle = Handle(asked.append)
    handle.cancel()
    assert asked == [handle] and not handle.done
