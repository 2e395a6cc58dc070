"""Which targets F the pattern program is solved for: from a bound downwards, or upwards, and then by halving.

The placement of a target is evaluated by an exact maximum flow, which is the flow reached and the next lower end of the
search over F.
"""

from __future__ import annotations

from collections.abc import Callable

from helix_kit.placement.pattern.search import PRECISION, STEPS, Candidate, PatternSearch, StageChain

CLOSE_SHARE = 0.7
"""If a coarse search has reached this share of the bound, it halves the distance to the bound at once."""
MAX_FAILURES = 2
"""Targets without stages in a row after which a thorough search steps no further up."""


def search_flow(
    search: PatternSearch,
    bound: float,
    evaluate: Callable[[StageChain], Candidate],
    low: float = 0.0,
    precision: float = PRECISION,
) -> Candidate | None:
    """The best placement among those of the targets tried, or None when no target gave stages.

    Targets first step down from `bound` until one is reached; then the distance between the best flow and the last
    target that failed is halved until it is within `precision` (relative). A thorough search steps up, as far as there
    are stages: a placement may carry less than its target, and that of a higher target more.

    Parameters
    ----------
    search
        Chooses stages for a target.
    bound
        Tokens/s that no placement exceeds.
    evaluate
        Lays stages out and returns the best placement of them, with its exact maximum flow.
    low
        Tokens/s reached already: targets below it are not tried. The result may carry less.
    precision
        Relative. A precision coarser than PRECISION also lets the search start by halving if `low` is near `bound`.
    """
    best: Candidate | None = None
    low_before, high = low, bound

    def attempt(target: float) -> float | None:
        """Tokens/s of the placement for a target; None when there are no stages for it."""
        nonlocal best, low
        chain = search.attempt(target)
        if chain is None:
            return None
        candidate = evaluate(chain)
        if best is None or candidate.tokens_per_s > best.tokens_per_s:
            best = candidate
            search.watch.report(value=candidate.tokens_per_s, placement=candidate.placement)
        low = max(low, candidate.tokens_per_s)
        return candidate.tokens_per_s

    # Near the bound, halving takes fewer programs than stepping down.
    near = precision > PRECISION and low > CLOSE_SHARE * bound
    failures = 0
    for step in reversed(STEPS) if search.is_thorough else ():
        target = bound * (1 - step)
        if failures == MAX_FAILURES or search.watch.is_over():
            break
        if target > low:
            failures = failures + 1 if attempt(target) is None else 0
            high = bound if failures == 0 else min(high, target)
    for step in () if near or search.is_thorough else STEPS:
        target = bound * (1 - step)
        if target <= low or search.watch.is_over():
            break
        reached = attempt(target)
        if reached is not None and reached >= target * (1 - 1e-6):
            break
        if reached is None:
            high = target
    if low <= low_before and not near and not search.is_thorough:
        return best
    failures = 0
    while high - low > precision * high and not search.watch.is_over():
        before, target = low, (low + high) / 2
        reached = attempt(target)
        if reached is None or reached < target * (1 - 1e-6):
            high = target
        # Links that carry less than was planned with do so for lower targets too.
        failures += search.is_thorough and reached is not None and low <= before
        if failures == MAX_FAILURES:
            break
    return best
