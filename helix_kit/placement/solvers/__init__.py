"""Solvers of linear and integer programs: HiGHS, GLPK and Gurobi for Pyomo models, and column generation.

>>> SOLVERS
('highs', 'glpk', 'gurobi')
"""

from helix_kit.placement.solvers.job import MipProgress, Solution, SolverSettings
from helix_kit.placement.solvers.solve import SOLVERS, check_solver, solve_model, write_lp

__all__ = ["SOLVERS", "MipProgress", "Solution", "SolverSettings", "check_solver", "solve_model", "write_lp"]
