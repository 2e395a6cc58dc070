"""The measures that serving is compared by, each defined once: latencies of requests, percentiles, SLOs and goodput.

Low to high: ``definitions`` (the table of names, units, formulas and sources), ``statistics`` and ``intervals``,
``times`` (latencies of each request), ``slo`` (limits, attainment, goodput). `helix_kit.report.Run` applies them to
simulated and real runs alike.
"""

from helix_kit.metrics.definitions import DEFINITIONS, Definition
from helix_kit.metrics.slo import SLO, Goodput, goodput_of
from helix_kit.metrics.statistics import describe, statistics
from helix_kit.metrics.times import RequestTimes, peak_concurrency

__all__ = [
    "DEFINITIONS",
    "SLO",
    "Definition",
    "Goodput",
    "RequestTimes",
    "describe",
    "goodput_of",
    "peak_concurrency",
    "statistics",
]
