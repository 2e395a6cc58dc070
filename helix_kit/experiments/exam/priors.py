"""What is expected of each constant of an engine before any run is seen."""

from __future__ import annotations

from typing import NamedTuple


class Prior(NamedTuple):
    """What is expected of a constant before any run.

    Examples
    --------
    >>> PRIORS["bandwidth_share"].value
    0.9
    """

    value: float
    """The most likely one."""
    spread: float
    """Standard deviation of its logarithm: 0.1 says 10 %, 0.7 a factor of two."""
    reason: str
    """Where the value comes from."""


PRIORS: dict[str, Prior] = {
    "bandwidth_share": Prior(0.9, 0.05, "copies within an H100's memory reach nine tenths of the datasheet"),
    "context_bandwidth_share": Prior(0.85, 0.15, "paged attention reads blocks of 16 tokens, less evenly than weights"),
    "arithmetic_share": Prior(0.6, 0.2, "large matrix products in 16 bits within the power limit"),
    "step_ms": Prior(0.8, 0.5, "some tens of launches and the host's work that no graph hides"),
    "layer_ms": Prior(0.02, 0.5, "about ten kernels of 2 us that do not overlap"),
    "mixed_layer_ms": Prior(0.02, 0.7, "four launches of 5 us for attention outside of the graphs"),
    "eager_layer_ms": Prior(0.03, 0.7, "ten launches of 5 us, less what runs at the same time"),
    "quantised_expert_layer_ms": Prior(0.04, 0.7, "as much again as the kernels of 16-bit experts"),
    "quantised_expert_eager_layer_ms": Prior(0.6, 0.7, "launches of the host for each of three groups of kernels"),
    "single_expert_skew": Prior(1.0, 0.6, "Zipf's law"),
    "all_reduce_ms": Prior(0.006, 0.5, "one kernel with two barriers between GPUs"),
    "all_reduce_hop_share": Prior(0.5, 0.6, "an all-reduce in one or two shots has half of a ring's steps"),
    "all_reduce_bandwidth_share": Prior(0.4, 0.5, "messages of some 100 kB do not fill the link"),
    "sampling_ns_per_logit": Prior(0.05, 0.6, "a few passes over 4-byte logits"),
    "sorted_sampling_ns_per_logit": Prior(
        0.15, 0.5, "a radix sort of keys and indices, softmax, scan, masks and scatter move some 300 bytes a logit"
    ),
    "sorted_row_ns_per_logit": Prior(
        1.5, 0.6, "the scan takes 1,024 logits of a row in about a microsecond, two softmaxes a fifth of that each"
    ),
    "penalty_ns_per_logit": Prior(0.04, 0.6, "two counts in 8-byte integers, masks and updates move 85 bytes a logit"),
    "request_ms": Prior(0.005, 0.6, "some lines of Python for each request"),
    "receive_ms": Prior(5.0, 0.5, "HTTP, tokeniser and two messages between processes"),
    "answer_ms": Prior(2.0, 0.7, "one message between processes, detokeniser and HTTP"),
}
"""Constants that are fitted. The others stay as the engine's record has them."""
FOLLOWERS = (
    "arithmetic_share",
    "sampling_ns_per_logit",
    "sorted_sampling_ns_per_logit",
    "sorted_row_ns_per_logit",
    "penalty_ns_per_logit",
)
"""Constants whose values on other GPUs are a multiple of the fitted one, rather than values of their own."""
