"""Which layers go where: methods, bounds and the plan they make.

>>> from helix_kit.cluster import Cluster
>>> from helix_kit.model import Model
>>> made = plan(Cluster.preset("single24"), Model.preset("llama2-70b"), time_limit=30)
>>> round(made.flow_tokens_per_s, 1), made.gap < 0.001
(2045.6, True)
"""

# The function `plan` takes the name of the module that holds the class: import the module first.
from helix_kit.placement.plan import Plan
from helix_kit.placement.planner import METHODS, OBJECTIVES, plan
from helix_kit.placement.problem import Problem

__all__ = ["METHODS", "OBJECTIVES", "Plan", "Problem", "plan"]
