"""Sweeps: plans simulated at many rates or concurrencies, where they saturate, and at which rate an SLO still holds.

Low to high: ``load`` (what is simulated at one point), ``regime`` (stable, backlogged or overloaded; the knee),
``point`` (one simulation as a row of numbers), ``messages``, ``pool`` and ``worker`` (points in worker processes),
``result`` (the curves), ``api`` (`sweep`).
"""

from helix_kit.sweeps.api import sweep
from helix_kit.sweeps.load import SweepOptions
from helix_kit.sweeps.regime import REGIMES, Backlog, backlog_of, regime_of
from helix_kit.sweeps.result import PlanCurve, Sweep

__all__ = ["REGIMES", "Backlog", "PlanCurve", "Sweep", "SweepOptions", "backlog_of", "regime_of", "sweep"]
