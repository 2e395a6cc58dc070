"""Solving Pyomo models with HiGHS, GLPK or Gurobi, and column generation."""
