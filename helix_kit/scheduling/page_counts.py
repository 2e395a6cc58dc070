"""Counts of one worker's KV pages, which both kinds of prefix cache keep."""

from __future__ import annotations

from typing import Protocol


class Promised(Protocol):
    """What a request has of a worker's pages."""

    private: int
    """Pages promised to it for tokens that no other request can use."""


class PageCounts:
    """How many pages of a worker are promised to requests, hold blocks, or can be promised.

    Parameters
    ----------
    capacity
        Pages of the worker.
    page_tokens
        Tokens of one layer in a page.

    Examples
    --------
    >>> PageCounts(10).free
    10
    """

    def __init__(self, capacity: int, *, page_tokens: int = 16) -> None:
        self.capacity, self.page_tokens = capacity, page_tokens
        self.private = 0
        """Pages promised to requests for tokens of their own."""
        self.held = 0
        """Pages of blocks that can be found."""
        self.idle = 0
        """Pages among `held` that no request uses."""

    @property
    def free(self) -> int:
        """Pages that can be promised: those without content, and those that are idle."""
        return self.capacity - self.private - self.held + self.idle

    @property
    def used(self) -> int:
        """Pages of requests; a page that several share counts once."""
        return self.private + self.held - self.idle

    def release(self, hold: Promised) -> None:
        """The request's own pages are free."""
        self.private -= hold.private
        hold.private = 0
