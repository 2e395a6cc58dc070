"""helix_kit: plan, simulate and serve large language models over whatever GPUs you have.

>>> import helix_kit as hk
>>> cluster = hk.Cluster.preset("single24")
>>> model = hk.Model.preset("llama2-70b")
>>> plan = hk.plan(cluster, model, time_limit_s=30)           # doctest: +SKIP
>>> run = hk.simulate(plan, hk.Workload.azure_conversation(rate_per_s=2.0, duration_s=600))    # doctest: +SKIP

Heavy parts (pyomo, torch, transformers, matplotlib) load when they are first used, never on import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_HOMES = {
    "Cluster": "helix_kit.cluster",
    "Node": "helix_kit.cluster",
    "Network": "helix_kit.cluster",
    "Link": "helix_kit.cluster",
    "Model": "helix_kit.model",
    "Plan": "helix_kit.placement.plan",
    "Problem": "helix_kit.placement.problem",
    "compare": "helix_kit.analysis.compare",
    "evaluate": "helix_kit.experiments.evaluate",
    "fleet": "helix_kit.fleets",
    "plan": "helix_kit.planning",
    "register_method": "helix_kit.placement.methods",
    "Workload": "helix_kit.workload",
    "simulate": "helix_kit.simulator",
    "sweep": "helix_kit.sweeps",
    "Run": "helix_kit.report",
    "serve": "helix_kit.runtime",
    "SLO": "helix_kit.metrics",
    "HelixKitError": "helix_kit.errors",
    "InputError": "helix_kit.errors",
    "InfeasibleError": "helix_kit.errors",
}

if TYPE_CHECKING:
    from helix_kit.analysis.compare import compare
    from helix_kit.cluster import Cluster, Link, Network, Node
    from helix_kit.errors import HelixKitError, InfeasibleError, InputError
    from helix_kit.experiments.evaluate import evaluate
    from helix_kit.fleets import fleet
    from helix_kit.metrics import SLO
    from helix_kit.model import Model
    from helix_kit.placement.methods import register_method
    from helix_kit.placement.plan import Plan
    from helix_kit.placement.problem import Problem
    from helix_kit.planning import plan
    from helix_kit.report import Run
    from helix_kit.runtime import serve
    from helix_kit.simulator import simulate
    from helix_kit.sweeps import sweep
    from helix_kit.workload import Workload

__all__ = [
    "SLO",
    "Cluster",
    "HelixKitError",
    "InfeasibleError",
    "InputError",
    "Link",
    "Model",
    "Network",
    "Node",
    "Plan",
    "Problem",
    "Run",
    "Workload",
    "__version__",
    "compare",
    "evaluate",
    "fleet",
    "plan",
    "register_method",
    "serve",
    "simulate",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'helix_kit' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
