"""What may go wrong, or be changed, in the middle of a simulation (`simulate(..., faults=[...])`)."""

from __future__ import annotations

from dataclasses import dataclass

from helix_kit.placement.plan import Plan


@dataclass(frozen=True)
class NodeDies:
    """`node` stops at `at_s`; the coordinator knows `detection_s` later and sends its requests elsewhere.

    They are prefilled again, prompt and what was generated, on pipelines of the flow that is left.
    """

    node: str
    at_s: float
    detection_s: float = 0.5


@dataclass(frozen=True)
class NodeSlows:
    """From `at_s` on, steps of `node` take `factor` times as long."""

    node: str
    at_s: float
    factor: float = 2.0


@dataclass(frozen=True)
class LinkDegrades:
    """From `at_s` on, a link has `bandwidth_factor` of its bandwidth and `extra_latency_s` more latency."""

    source: str
    target: str
    at_s: float
    bandwidth_factor: float = 0.1
    extra_latency_s: float = 0.0


@dataclass(frozen=True)
class PlanSwap:
    """At `at_s` all nodes drop what they hold and load `plan`, which takes `reload_s`; all requests start again."""

    plan: Plan
    at_s: float
    reload_s: float | None = None
    """None: the time to read the fullest node's layers at 1 GB/s."""


Fault = NodeDies | NodeSlows | LinkDegrades | PlanSwap
