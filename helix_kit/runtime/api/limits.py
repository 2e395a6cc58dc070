"""What one HTTP request may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for.

    Examples
    --------
    >>> Limits(seconds=60).default_new_tokens
    16
    """

    body_bytes: int = 1 << 20
    """Largest body."""
    new_tokens: int | None = None
    """Most tokens of an answer; None: the model's context alone limits it."""
    seconds: float = 600.0
    """Longest time from arrival to the last token."""
    default_new_tokens: int = 16
    """Most tokens of a completion that does not say how many, as in OpenAI's API. A chat may take all that fit."""
