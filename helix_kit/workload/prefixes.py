"""Content that prompts share: read from traces, written to files, and cut into the blocks of a prefix cache.

A prompt's content is a row of segments (id, tokens). Two prompts share the KV cache of their first tokens as far as
their segments are the same. A prefix cache works in blocks: a block's key stands for all content up to its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from helix_kit.errors import InputError
from helix_kit.workload.request import Request, Segments

MAX_ID = 2**62


def format_segments(segments: Segments) -> str:
    """Segments as a cell of our CSV files.

    Parameters
    ----------
    segments
        (id, tokens) in order.

    Returns
    -------
    str
        ``id:tokens`` for each, separated by spaces.

    Examples
    --------
    >>> format_segments(((3, 100), (17, 40)))
    '3:100 17:40'
    """
    return " ".join(f"{key}:{tokens}" for key, tokens in segments)


def parse_segments(text: str, input_tokens: int, where: str) -> Segments:
    """Segments from a cell of our CSV files.

    Parameters
    ----------
    text
        As `format_segments` writes it.
    input_tokens
        Length of the prompt.
    where
        Place for messages.

    Returns
    -------
    Segments
        (id, tokens) in order.

    Raises
    ------
    InputError
        The text is not of this form, or the segments are longer than the prompt.

    Examples
    --------
    >>> parse_segments("3:100 17:40", 150, "file:2")
    ((3, 100), (17, 40))
    """
    pairs = [part.partition(":") for part in text.split()]
    if not all(key.isdecimal() and tokens.isdecimal() and int(tokens) > 0 for key, _, tokens in pairs):
        raise InputError("expected id:tokens, separated by spaces", where=where, field="prefix", value=text)
    segments = tuple((int(key), int(tokens)) for key, _, tokens in pairs)
    total = sum(tokens for _, tokens in segments)
    if total > input_tokens or any(key > MAX_ID for key, _ in segments):
        expected = f"expected segments of at most input_tokens ({input_tokens}) together"
        raise InputError(expected, where=where, field="prefix", value=text)
    return segments


def segments_of_hashes(hashes: Any, tokens_each: int, input_tokens: int, where: str) -> Segments:
    """Segments from the ``hash_ids`` of a trace: each stands for `tokens_each` tokens, the last one for what is left.

    Parameters
    ----------
    hashes
        The field's value.
    tokens_each
        Tokens of a block of the trace.
    input_tokens
        Length of the prompt.
    where
        Place for messages.

    Returns
    -------
    Segments
        Hashes beyond the prompt's length are left out.

    Raises
    ------
    InputError
        The field is not a list of whole numbers.

    Examples
    --------
    >>> segments_of_hashes([7, 8], 512, 600, "file:1")
    ((7, 512), (8, 88))
    """
    if not isinstance(hashes, list) or not all(type(h) is int and 0 <= h <= MAX_ID for h in hashes):
        raise InputError("expected a list of whole numbers", where=where, field="hash_ids", value=hashes)
    lengths = (min(tokens_each, input_tokens - i * tokens_each) for i in range(len(hashes)))
    return tuple((h, n) for h, n in zip(hashes, lengths, strict=True) if n > 0)


DRAWN_AT_ONCE = 256


def draw_content(seed: int, content: int, count: int, below: int) -> list[int]:
    """The first `count` tokens of a content, drawn from the whole numbers below `below`.

    Parameters
    ----------
    seed
        Another seed gives other contents.
    content
        Id of the content, as in a request's `prefix`.
    count
        Tokens.
    below
        Limit of the numbers.

    Returns
    -------
    list of int
        The same for equal arguments; of a content with fewer tokens, the beginning.

    Examples
    --------
    >>> draw_content(0, 7, 300, 50)[:5] == draw_content(0, 7, 5, 50)
    True
    """
    drawn: list[int] = []
    for part in range(-(-count // DRAWN_AT_ONCE)):
        drawn += np.random.default_rng((seed, 1, content, part)).integers(0, below, DRAWN_AT_ONCE).tolist()
    return drawn[:count]


class BlockKeys(NamedTuple):
    """Keys of the blocks of many requests. Equal keys stand for equal content up to the block's end.

    Examples
    --------
    >>> block_keys([Request(0, 0.0, 40, 5, prefix=((1, 40),))], 16).distinct
    2
    """

    keys: np.ndarray
    """Keys of all requests, end to end; whole numbers from 0 on. Those of a request go up, block by block."""
    first: np.ndarray
    """Place of each request's first key, shape (requests,)."""
    blocks: np.ndarray
    """Blocks of each request whose content is known, shape (requests,)."""
    distinct: int
    """Number of different keys."""


def block_keys(requests: Sequence[Request], block_tokens: int) -> BlockKeys:
    """The keys of all full blocks of prompts and answers whose content is known.

    Parameters
    ----------
    requests
        With their `prefix` and `answer`. An answer counts where the whole prompt before it is known.
    block_tokens
        Tokens of a block.

    Returns
    -------
    BlockKeys
        For all requests.

    Examples
    --------
    >>> prompts = [Request(0, 0.0, 40, 5, prefix=((1, 32), (2, 8))), Request(1, 0.0, 40, 5, prefix=((1, 32), (3, 8)))]
    >>> block_keys(prompts, 16).keys.tolist(), block_keys(prompts, 8).keys.tolist()
    ([0, 1, 0, 1], [0, 1, 2, 3, 4, 0, 1, 2, 3, 5])
    """
    first_of: dict[Any, int] = {}
    count_of: dict[Any, int] = {}
    more_of: dict[Any, list[int]] = {}
    fresh = 0

    def take(key: Any, length: int, found: list[int]) -> int:
        """Append to `found` the keys of a run's first `length` blocks, as first and count; returns the last key.

        A run is blocks that follow each other within one segment. They get keys when they are first asked for; those
        that a longer run asks for later are pieces of their own.
        """
        nonlocal fresh
        first = first_of.get(key)
        if first is None:
            first_of[key], count_of[key] = fresh, length
            found += (fresh, length)
            fresh += length
            return fresh - 1
        left = length - count_of[key]
        if left <= 0:
            found += (first, length)
            return first + length - 1
        found += (first, count_of[key])
        pieces = more_of.setdefault(key, [])
        for first, count in zip(pieces[::2], pieces[1::2], strict=True):
            found += (first, min(left, count))
            left -= count
            if left <= 0:
                return first + left + count - 1
        pieces += (fresh, left)
        found += (fresh, left)
        fresh += left
        return fresh - 1

    def keys_of(segments: Segments) -> list[int]:
        found: list[int] = []
        open_block: list[tuple[int, int, int]] = []
        filled, previous = 0, -1
        for content, tokens in segments:
            at = 0
            while at < tokens:
                if filled == 0 and tokens - at >= block_tokens:
                    blocks = (tokens - at) // block_tokens
                    previous = take((previous, content, at), blocks, found)
                    at += blocks * block_tokens
                    continue
                taken = min(block_tokens - filled, tokens - at)
                open_block.append((content, at, taken))
                filled, at = filled + taken, at + taken
                if filled == block_tokens:
                    previous = take((previous, tuple(open_block)), 1, found)
                    open_block, filled = [], 0
        return found

    whole: dict[Segments, np.ndarray] = {}
    rows = []
    for request in requests:
        segments = request.prefix
        if request.answer is not None and sum(n for _, n in segments) == request.input_tokens:
            segments = (*segments, (request.answer, request.output_tokens))
        row = whole.get(segments)
        if row is None:
            row = whole[segments] = np.array(keys_of(segments), dtype=np.int64).reshape(-1, 2)
        rows.append(row)
    pieces = np.concatenate([np.zeros((0, 2), dtype=np.int64), *rows])
    ends = pieces[:, 1].cumsum()
    # Within a piece, keys go up by one; a piece of the row begins where the one before it ends.
    flat = np.arange(ends[-1] if len(ends) else 0) + np.repeat(pieces[:, 0] - ends + pieces[:, 1], pieces[:, 1])
    bounds = np.concatenate([[0], ends])[np.cumsum([0, *(len(row) for row in rows)])]
    return BlockKeys(flat, bounds[:-1], np.diff(bounds), fresh)


MOONCAKE_TOKENS = 512
"""Tokens of a block in Mooncake's traces."""


def mooncake_entries(requests: Sequence[Request]) -> list[dict[str, Any]]:
    """Requests as entries of a trace in Mooncake's format: times in ms, and a number for each 512 tokens of a prompt.

    Parameters
    ----------
    requests
        In order of arrival.

    Returns
    -------
    list of dict
        One entry for each. Equal beginnings are kept in whole blocks; an answer's content is part of later prompts.

    Examples
    --------
    >>> mooncake_entries([Request(0, 1.5, 600, 5, prefix=((1, 600),))])
    [{'timestamp': 1500, 'input_length': 600, 'output_length': 5, 'hash_ids': [0, 1]}]
    """
    keys = block_keys(requests, MOONCAKE_TOKENS)
    fresh, entries = keys.distinct, []
    for request, first, count in zip(requests, keys.first.tolist(), keys.blocks.tolist(), strict=True):
        blocks = -(-request.input_tokens // MOONCAKE_TOKENS)
        hashes = keys.keys[first : first + min(count, request.input_tokens // MOONCAKE_TOKENS)].tolist()
        unknown = blocks - len(hashes)
        hashes += range(fresh, fresh + unknown)
        fresh += unknown
        entries.append(
            {
                "timestamp": round(1e3 * request.arrival_s),
                "input_length": request.input_tokens,
                "output_length": request.output_tokens,
                "hash_ids": hashes,
            }
        )
    return entries


__all__ = [
    "BlockKeys",
    "block_keys",
    "draw_content",
    "format_segments",
    "mooncake_entries",
    "parse_segments",
    "segments_of_hashes",
]
