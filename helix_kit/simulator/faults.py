"""What may go wrong, or be changed, in the middle of a simulation (`simulate(..., faults=[...])`)."""

from __future__ import annotations

from dataclasses import dataclass

from helix_kit.placement.plan import Plan


@dataclass(frozen=True)
class NodeDies:
    """`node` stops at `at_s`; the coordinator knows `detection_s` later and sends its requests elsewhere.

    They are prefilled again, prompt and what was generated, on pipelines of the flow that is left.

    Examples
    --------
    >>> NodeDies("T4-0", at_s=60.0).detection_s
    0.5
    """

    node: str
    """Name of the node."""
    at_s: float
    """When it stops."""
    detection_s: float = 0.5
    """Seconds until the coordinator notices."""


@dataclass(frozen=True)
class NodeSlows:
    """From `at_s` on, steps of `node` take `factor` times as long.

    Examples
    --------
    >>> NodeSlows("T4-0", at_s=60.0, factor=3.0).factor
    3.0
    """

    node: str
    """Name of the node."""
    at_s: float
    """When it becomes slow."""
    factor: float = 2.0
    """How many times as long its steps take, against the profile."""


@dataclass(frozen=True)
class LinkDegrades:
    """From `at_s` on, a link has less bandwidth and more latency.

    Examples
    --------
    >>> LinkDegrades("coordinator", "T4-0", at_s=60.0).bandwidth_factor
    0.1
    """

    source: str
    """Sending node, or ``coordinator``."""
    target: str
    """Receiving node, or ``coordinator``."""
    at_s: float
    """When the link degrades."""
    bandwidth_factor: float = 0.1
    """Share of the bandwidth that is left."""
    extra_latency_s: float = 0.0
    """Seconds of latency that are added."""


@dataclass(frozen=True)
class PlanSwap:
    """At `at_s` all nodes drop what they hold and load another plan; all requests start again.

    Examples
    --------
    >>> PlanSwap(plan, at_s=60.0, reload_s=10.0)    # doctest: +SKIP
    """

    plan: Plan
    """The plan that takes over."""
    at_s: float
    """When loading starts."""
    reload_s: float | None = None
    """None: the time to read the fullest node's layers at 1 GB/s."""


Fault = NodeDies | NodeSlows | LinkDegrades | PlanSwap
