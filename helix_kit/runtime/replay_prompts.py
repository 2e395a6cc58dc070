"""The prompts of a replay: random tokens, and the same tokens wherever a workload names the same content."""

from __future__ import annotations

import numpy as np

from helix_kit.runtime.handle import Handle
from helix_kit.workload.prefixes import draw_content
from helix_kit.workload.request import Request


class ReplayPrompts:
    """Makes each prompt when it is submitted: a backlog may have millions of tokens.

    The content of an answer is what was generated if that answer is complete by then.

    Parameters
    ----------
    seed
        Of the random tokens.
    vocab_size
        Tokens are drawn from 3 up to below this number.
    """

    def __init__(self, seed: int, vocab_size: int) -> None:
        self._seed, self._vocabulary = seed, vocab_size
        self._rng = np.random.default_rng(seed)
        self._answers: dict[int, Handle] = {}

    def token_ids(self, request: Request) -> list[int]:
        """The prompt of a request; the requests of a workload come in order."""
        named = [token for key, count in request.prefix for token in self._content(key, count)]
        return named + self._rng.integers(3, self._vocabulary, request.input_tokens - len(named)).tolist()

    def keep_answer(self, request: Request, handle: Handle) -> None:
        """Prompts that hold the answer to the request find it in its handle."""
        if request.answer is not None:
            self._answers[request.answer] = handle

    def _content(self, key: int, count: int) -> list[int]:
        handle = self._answers.get(key)
        if handle is not None and handle.done and handle.record.outcome == "finished":
            generated = handle.result().token_ids
            if len(generated) >= count:
                return generated[:count]
        return [3 + i for i in draw_content(self._seed, key, count, self._vocabulary - 3)]
