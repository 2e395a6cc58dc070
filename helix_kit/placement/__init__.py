"""Which layers go where: the problem, the methods that place layers, bounds, and the plan that results.

`helix_kit.planning.plan` is the verb that users call; `helix_kit.placement.planner.plan_problem` is the same for a
problem that is built already.
"""

from helix_kit.placement.method import Method, Placed, PlanOptions, Task
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem

__all__ = ["Method", "Placed", "Plan", "PlanOptions", "Problem", "Task"]
