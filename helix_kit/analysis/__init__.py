"""Why a plan is as good as it is, and what would make it better, as sentences and as ranked tables.

>>> from helix_kit.analysis import explain, what_if
>>> print(explain(plan))                     # doctest: +SKIP
>>> what_if(plan).head()                     # doctest: +SKIP
"""

from __future__ import annotations

from helix_kit.analysis.bottleneck import Bottleneck, bottleneck, explain
from helix_kit.analysis.changes import Change, changes
from helix_kit.analysis.compare import compare
from helix_kit.analysis.cost import Cost, cost
from helix_kit.analysis.key_figures import KeyFigures, key_figures
from helix_kit.analysis.losses import losses
from helix_kit.analysis.repair import fix_the_rest
from helix_kit.analysis.robustness import robustness
from helix_kit.analysis.what_if import what_if
from helix_kit.placement.feasibility import Shortfall, shortfall

__all__ = [
    "Bottleneck",
    "Change",
    "Cost",
    "KeyFigures",
    "Shortfall",
    "bottleneck",
    "changes",
    "compare",
    "cost",
    "explain",
    "fix_the_rest",
    "key_figures",
    "losses",
    "robustness",
    "shortfall",
    "what_if",
]
