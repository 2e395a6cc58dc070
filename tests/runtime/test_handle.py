"""Reading an answer as it comes."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

torch = pytest.importorskip("torch")

from helix_kit.runtime import Engine  # noqa: E402


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
