"""Which tokens a request has so far, and how often its answer has each: what penalties are computed from."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

_FIRST_CAPACITY = 64


class TokenCounts:
    """The distinct tokens of one request, and how often each was generated.

    It grows with each item of the request, so that a step only copies it, however long the request is.

    Parameters
    ----------
    prompt_tokens
        How many of the first tokens are the prompt.

    Examples
    --------
    >>> counts = TokenCounts(prompt_tokens=2)
    >>> counts.add([7, 9, 9, 9, 4])
    >>> counts.ids.tolist(), counts.generated.tolist()
    ([7, 9, 4], [0, 2, 1])
    """

    def __init__(self, prompt_tokens: int) -> None:
        self._prompt_tokens = prompt_tokens
        self._num_tokens = 0
        self._place: dict[int, int] = {}
        """Token -> its index in the arrays."""
        self._ids = np.zeros(_FIRST_CAPACITY, dtype=np.int64)
        self._generated = np.zeros(_FIRST_CAPACITY, dtype=np.int64)

    def add(self, token_ids: Iterable[int]) -> None:
        """The request's next tokens."""
        for token_id in token_ids:
            place = self._place.get(token_id)
            if place is None:
                place = self._new_place(token_id)
            self._generated[place] += self._num_tokens >= self._prompt_tokens
            self._num_tokens += 1

    def _new_place(self, token_id: int) -> int:
        place = len(self._place)
        if place == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._generated = np.concatenate([self._generated, np.zeros_like(self._generated)])
        self._place[token_id] = place
        self._ids[place] = token_id
        return place

    @property
    def ids(self) -> np.ndarray:
        """The distinct tokens, in the order in which they first came."""
        return self._ids[: len(self._place)]

    @property
    def generated(self) -> np.ndarray:
        """How often the answer has each of `ids`; 0 for tokens that only the prompt has."""
        return self._generated[: len(self._place)]
