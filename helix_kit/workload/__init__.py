"""Requests over time: trace readers, samplers fitted to traces, synthetic arrivals, offline backlogs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helix_kit.workload.request import Outcome, Request, RequestRecord

if TYPE_CHECKING:
    from helix_kit.workload.named import make_workload
    from helix_kit.workload.workload import Workload

__all__ = ["Outcome", "Request", "RequestRecord", "Workload", "make_workload"]


def __getattr__(name: str) -> Any:
    # numpy only when a workload is made: policies import `Request` from here.
    if name == "Workload":
        from helix_kit.workload.workload import Workload

        return Workload
    if name == "make_workload":
        from helix_kit.workload.named import make_workload

        return make_workload
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
