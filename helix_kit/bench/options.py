"""Options of a measurement, declared once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from helix_kit.errors import InputError


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """How a server is measured.

    Raises
    ------
    InputError
        A number that is not positive, or an unknown kind of prompts.

    Examples
    --------
    >>> BenchOptions(concurrency=8).is_closed
    True
    """

    model: str | None = None
    """Model to ask for; None: the first one of ``/v1/models``."""
    api_key: str | None = None
    """Sent as a bearer token."""
    chat: bool = False
    """Ask ``/v1/chat/completions`` in place of ``/v1/completions``."""
    concurrency: int | None = None
    """Closed loop: so many requests are always open, and arrival times do not count. None: open loop."""
    warmup: int = 1
    """Requests that are sent first, one after another, and not counted."""
    timeout_s: float = 600.0
    """A request that takes longer has failed."""
    prompts: Literal["text", "tokens"] = "text"
    """Prompts of words, or of random token ids, which vLLM, SGLang, llama.cpp and helix_kit take."""
    vocab_size: int = 1000
    """Token ids are below it."""
    ignore_eos: bool = True
    """Ask for answers of exactly the workload's length. OpenAI's own service refuses that field."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of each request."""
    seed: int = 0
    """Of the prompts."""

    def __post_init__(self) -> None:
        if self.prompts not in {"text", "tokens"}:
            raise InputError("expected text or tokens", field="prompts", value=self.prompts)
        if self.chat and self.prompts == "tokens":
            raise InputError("chats have prompts of text", field="prompts", value=self.prompts)
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise InputError("expected a positive number of seconds", field="timeout_s", value=self.timeout_s)
        for name, value, least in (("concurrency", self.concurrency, 1), ("warmup", self.warmup, 0),
                                   ("vocab_size", self.vocab_size, 4)):  # fmt: skip
            if value is not None and value < least:
                raise InputError(f"expected at least {least}", field=name, value=value)

    @property
    def is_closed(self) -> bool:
        """Whether a number of requests is always open."""
        return self.concurrency is not None


__all__ = ["BenchOptions"]
