"""The measures by name: what each one is, its unit, its formula, and where the definition comes from."""

from __future__ import annotations

from typing import NamedTuple

VLLM = "vLLM, `vllm bench serve`"
HELIX = "Helix, section 6.2"


class Definition(NamedTuple):
    """One measure of a run.

    Examples
    --------
    >>> Definition("ttft_s", "time to first token", "s", "first token - arrival", "vLLM").unit
    's'
    """

    key: str
    """Its key in `Run.summary()`."""
    name: str
    """What people call it."""
    unit: str
    """Unit of the values."""
    formula: str
    """How it is computed."""
    source: str
    """Who defines it so."""


DEFINITIONS = (
    Definition("ttft_s", "TTFT, time to first token", "s", "first token - arrival", f"{VLLM}; {HELIX}: prompt latency"),
    Definition("tpot_s", "TPOT, time per output token", "s", "(E2EL - TTFT) / (output tokens - 1)", VLLM),
    Definition("itl_s", "ITL, inter-token latency", "s", "each gap between two tokens of a request, all pooled",
               f"{VLLM}; {HELIX}: decode latency"),
    Definition("e2el_s", "E2EL, end-to-end latency", "s", "last token - arrival", VLLM),
    Definition("queue_s", "queue time", "s", "start on a pipeline - arrival", "vLLM, request_queue_time_seconds"),
    Definition("requests_per_s", "request throughput", "requests/s", "finished requests / window", VLLM),
    Definition("input_tokens_per_s", "input throughput", "tokens/s",
               "prompt tokens of requests whose first token came / window", VLLM),
    Definition("output_tokens_per_s", "output throughput", "tokens/s", "tokens that came / window", VLLM),
    Definition("total_tokens_per_s", "total throughput", "tokens/s",
               "(prompt tokens + tokens after each first) / window", f"{HELIX} counts both"),
    Definition("decode_tokens_per_s", "decode throughput", "tokens/s", "tokens after each request's first / window",
               HELIX),
    Definition("peak_concurrency", "peak concurrency", "requests", "largest number of requests served at once", VLLM),
    Definition("goodput", "goodput", "requests/s", "finished requests that keep every limit of the SLO / window",
               "DistServe, section 2; vLLM, --goodput"),
    Definition("attainment", "SLO attainment", "share", "requests that keep every limit / requests that are decided",
               "DistServe, section 2"),
)  # fmt: skip
"""Every measure. A value counts when it becomes known within the run's window."""

__all__ = ["DEFINITIONS", "Definition"]
