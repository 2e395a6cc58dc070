"""Blocks of prompts and answers by their content: chained hashes, and small numbers for those that workers hold.

A block is 16 tokens. Its hash covers all tokens from the first one of the request to the block's last, so that equal
hashes mean equal KV caches. The hash is BLAKE2b with 128 bits: a client cannot make two contents with the same one.
"""

from __future__ import annotations

import array
import hashlib
from collections.abc import Sequence

import numpy as np

from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS

HASH_BYTES = 16


def block_hashes(token_ids: Sequence[int], before: bytes = b"") -> list[bytes]:
    """The hashes of the full blocks of `token_ids`; `before` is that of the block before them.

    >>> first, second = block_hashes(list(range(40)))
    >>> block_hashes(list(range(16, 32)), before=first) == [second]
    True
    """
    content = array.array("i", token_ids).tobytes()
    size = len(content) // max(1, len(token_ids)) * PAGE_TOKENS
    hashes = []
    for end in range(size, len(content) + 1, size) if size else ():
        before = hashlib.blake2b(before + content[end - size : end], digest_size=HASH_BYTES).digest()
        hashes.append(before)
    return hashes


class BlockNumbers:
    """Numbers of the blocks that workers hold; a number is used again when no worker holds its block any more.

    Examples
    --------
    >>> numbers = BlockNumbers()
    >>> numbers.known([b"a", b"b"]).tolist(), numbers.of([b"a", b"b"]).tolist()
    ([], [0, 1])
    >>> numbers.held(np.array([0]))
    >>> numbers.forget_unheld([b"a", b"b"])
    >>> numbers.known([b"a", b"b"]).tolist()
    [0]
    """

    def __init__(self) -> None:
        self._number: dict[bytes, int] = {}
        self._hash: list[bytes] = []
        self._holders: list[int] = []
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._number)

    def known(self, hashes: Sequence[bytes]) -> np.ndarray:
        """Numbers of the leading blocks, until one has none."""
        found = []
        for key in hashes:
            number = self._number.get(key)
            if number is None:
                break
            found.append(number)
        return np.array(found, dtype=np.int64)

    def of(self, hashes: Sequence[bytes]) -> np.ndarray:
        """Numbers of all these blocks; new ones for those that have none."""
        found = []
        for key in hashes:
            number = self._number.get(key)
            if number is None:
                number = self._free.pop() if self._free else len(self._hash)
                if number == len(self._hash):
                    self._hash.append(key)
                    self._holders.append(0)
                self._hash[number], self._number[key] = key, number
            found.append(number)
        return np.array(found, dtype=np.int64)

    def held(self, numbers: np.ndarray) -> None:
        """One more worker holds each of these blocks."""
        for number in numbers.tolist():
            self._holders[number] += 1

    def no_longer_held(self, numbers: np.ndarray) -> None:
        """One worker less holds each of these blocks."""
        for number in numbers.tolist():
            self._holders[number] -= 1
            if self._holders[number] == 0:
                self._forget(number)

    def forget_unheld(self, hashes: Sequence[bytes]) -> None:
        """Take back the numbers of those of these blocks that no worker holds."""
        for key in hashes:
            number = self._number.get(key)
            if number is not None and self._holders[number] == 0:
                self._forget(number)

    def _forget(self, number: int) -> None:
        del self._number[self._hash[number]]
        self._free.append(number)
