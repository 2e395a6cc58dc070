"""Lengths of the requests that a plan is judged with: as nearly those that it was made for as its file tells."""

from __future__ import annotations

from helix_kit.placement.plan import Plan
from helix_kit.typical_request import KV_TOKENS, PUBLISHED_LENGTHS, TRACE_LENGTHS
from helix_kit.workload.lengths import SAMPLE_SIZE, LengthPairs, length_pairs, workload_for
from helix_kit.workload.named import SAMPLED


def is_usual(plan: Plan) -> bool:
    """Whether the plan is for the conversation trace, or for the published estimate of it."""
    return plan.lengths in (TRACE_LENGTHS, PUBLISHED_LENGTHS)


def mean_context(plan: Plan) -> int:
    """Tokens of a finished request of the plan, on average: prompt and answer."""
    return KV_TOKENS if is_usual(plan) else max(1, round(plan.lengths.tokens))


def pairs_of(plan: Plan) -> LengthPairs:
    """Pairs (input tokens, output tokens) to simulate a plan with; empty where it is for the conversation trace.

    A plan's file has the means alone. Lengths that were given as means are all equal, those of a sampled workload are
    drawn from it again, and a trace is stood for by the conversation trace, stretched to its means.
    """
    means = plan.lengths
    if is_usual(plan):
        return ()
    if means.source == "given":
        return ((max(1, round(means.input_tokens)), max(2, round(means.output_tokens))),)
    if means.source in SAMPLED:
        return length_pairs(workload_for(means.source))
    from helix_kit.simulator.steady import lengths_of  # numba takes a second to load.

    sample = lengths_of((), means)
    step = max(1, len(sample) // SAMPLE_SIZE)
    return tuple((a, b) for a, b in sample[::step].tolist())
