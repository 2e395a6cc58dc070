"""The candidates that a search has simulated, and which of them it goes on from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, KeysView, Sequence

from helix_kit.search.candidate import Candidate, is_whole
from helix_kit.search.evaluate import Evaluator
from helix_kit.search.moves import key_of

MAX_ELITES, MAX_ELITES_OF_A_DEPTH = 4, 2
STEADY_MARGIN = 0.85
"""A steady run ends early when it surely serves less than this share of the worst of the best four. Short runs mislead
by up to ten percent, and longer ones decide at the end."""
QUARTER_MARGIN, HALF_MARGIN = 0.7, 0.85
"""A simulation ends early when, after a quarter or half of its window, it serves less than this share of what the worst
of the best four served then."""


class Archive:
    """Simulated candidates by identity."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._entries: dict[str, Candidate] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def identities(self) -> KeysView[str]:
        """Identities of all candidates simulated so far."""
        return self._entries.keys()

    @property
    def candidates(self) -> list[Candidate]:
        """All candidates simulated so far, in the order in which they came."""
        return list(self._entries.values())

    def add(self, simulated: Sequence[Candidate]) -> None:
        """Keep candidates, in place of earlier ones of the same identity."""
        for c in simulated:
            self._entries[self._evaluator.identity(c.placement, c.shares)] = c

    def ranked(self, duration_s: float) -> list[Candidate]:
        """Candidates with the largest value first, of those that were simulated for the whole duration.

        A duration of 0 stands for windows in tokens, which end after other seconds for each plan.

        Runs that were stopped early are kept only so that they are not repeated; their means are not comparable. They
        are returned only while there is no whole run.
        """
        whole = [c for c in self._entries.values() if is_whole(c.measured, duration_s)]
        return sorted(
            whole or self._entries.values(), key=lambda c: (-c.value, key_of(c.placement), sorted(c.shares.items()))
        )

    def elites(self, duration_s: float) -> list[Candidate]:
        """The best few, which local search starts from: each of another shape, and at most two of one depth."""
        elites: dict[str, Candidate] = {}
        depths: Counter[int] = Counter()
        for c in self.ranked(duration_s):
            shape, depth = repr(self._evaluator.shape(c.placement)), c.depth
            if shape not in elites and depths[depth] < MAX_ELITES_OF_A_DEPTH:
                elites[shape] = c
                depths[depth] += 1
            if len(elites) == MAX_ELITES:
                break
        return list(elites.values())

    def race_limits(self, duration_s: float) -> tuple[float, float] | None:
        """Tokens/s after a quarter and half of the window below which a simulation ends early.

        All simulations see the same requests, so the same seconds are compared. A plan that is marked down for its
        latency counts here with its tokens/s marked down by the same factor. None while there are fewer than four
        plans to compare with.
        """
        best = [c for c in self.ranked(duration_s)[:MAX_ELITES] if c.value > 0]
        if len(best) < MAX_ELITES:
            return None

        def slowest(rates: Iterable[float]) -> float:
            return min(rate * c.value / c.measured.decode_tokens_per_s for rate, c in zip(rates, best, strict=True))

        return (
            QUARTER_MARGIN * slowest(c.measured.quarter_tokens_per_s for c in best),
            HALF_MARGIN * slowest(c.measured.half_tokens_per_s for c in best),
        )

    def floor_tokens_per_s(self) -> float:
        """Decode tokens/s below which a steady run need not go on: then it is surely far behind the best four.

        This is a share of the least of the lower ends of their intervals, each marked down as its plan is. 0 while
        fewer are known.
        """
        best = [c for c in self.ranked(0.0)[:MAX_ELITES] if c.value > 0]
        if len(best) < MAX_ELITES:
            return 0.0
        shares = [1 - c.measured.half_width_tokens_per_s / c.measured.decode_tokens_per_s for c in best]
        return STEADY_MARGIN * min(c.value * share for c, share in zip(best, shares, strict=True))
