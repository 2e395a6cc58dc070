"""The result of a run, simulated or real: records of requests, and from them throughput and latency.

The simulator and the runtime both return a `Run`, so the same numbers are computed in the same way for both.

>>> from helix_kit.workload.request import Request, RequestRecord
>>> record = RequestRecord(Request(0, 1.0, 10, 3), outcome="finished", first_token_s=1.5, finished_s=2.1,
...                        tokens_generated=3, token_times_s=[1.5, 1.7, 2.1])
>>> summary = Run([record], window=(0.0, 4.0)).summary()
>>> summary["decode_tokens_per_s"], summary["prompt_latency_s"]["avg"], round(summary["decode_latency_s"]["avg"], 3)
(0.5, 0.5, 0.3)
"""

from __future__ import annotations

from helix_kit.metrics import describe
from helix_kit.report.run import Run, merge
from helix_kit.report.use import Batch, LinkUse, NodeUse, TokenTimes

__all__ = ["Batch", "LinkUse", "NodeUse", "Run", "TokenTimes", "describe", "merge"]
