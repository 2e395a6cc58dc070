"""Errors of a running plan: it could not start or is closed, or a request is longer than the model's context."""

from __future__ import annotations

from helix_kit.errors import HelixKitError, InputError


class EngineError(HelixKitError):
    """The engine could not be started, or has been closed.

    Examples
    --------
    >>> engine.close()                                                                   # doctest: +SKIP
    >>> engine.generate("Hello")                                                         # doctest: +SKIP
    Traceback (most recent call last):
    ...
    helix_kit.runtime.errors.EngineError: the engine is closed
    """


class ContextLengthError(InputError):
    """Prompt and answer have more tokens together than the model's context.

    Examples
    --------
    >>> error = ContextLengthError(limit=512, prompt_tokens=500, new_tokens=50)
    >>> print(error)
    max_new_tokens = 50: the model's maximum context length is 512 tokens, and the prompt has 500: expected at most 12
    """

    def __init__(self, *, limit: int, prompt_tokens: int, new_tokens: int) -> None:
        self.limit, self.prompt_tokens = limit, prompt_tokens
        left = limit - prompt_tokens
        room = f"expected at most {left}" if left > 0 else "no token is left for the answer"
        super().__init__(
            f"the model's maximum context length is {limit} tokens, and the prompt has {prompt_tokens}: {room}",
            field="max_new_tokens",
            value=new_tokens,
        )
