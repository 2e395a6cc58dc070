# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 12 Ablations and solver quality (paper, sections 6.8 and 6.9)
#
# **Purpose.** This notebook shows the effect of pruning and of initial values, compares plans with proven bounds, and
# shows how planning scales.
#
# **Takes** seconds: results in `figures/` are shown as they are. With `RUN = True` figures that are out of date are
# computed again first: about 8 minutes where none is up to date (`figures/NAME.json` records the seconds of each).

# %%
from helix_kit.experiments.machinery.showing import show

RUN = False

# %% [markdown]
# ## 1 Size of the paper's program

# %%
sizes = show("problem-sizes", run=RUN)
sizes

# %%
sizes.table

# %% [markdown]
# ## 2 Pruning and initial values

# %% [markdown]
# The upper panels show the flow of the plans, the lower ones what they serve. On 42 machines the plan with the least
# flow serves most.

# %%
show("ablations", run=RUN)

# %% [markdown]
# ## 3 Solver quality on ten nodes

# %% [markdown]
# The optimum is the published one, which Gurobi proved after more than an hour.

# %%
quality = show("solver-quality", run=RUN)
quality

# %% [markdown]
# ## 4 Value and bound over time

# %% [markdown]
# Solid lines are values and dashed lines are proven bounds. The seconds were measured on the machine that made the
# picture. A program is solved where its two lines meet.

# %%
show("convergence", run=RUN)

# %% [markdown]
# ## 5 Beyond: scale, and modern machines

# %%
show("scaling", run=RUN)

# %% [markdown]
# The next picture is an estimate from rooflines. These models have not been measured on these machines.

# %%
show("modern-models", run=RUN)

# %% [markdown]
# ## 6 The simulator beside real workers
#
# The simulator and four worker processes of this machine get the same requests at the same times.

# %%
show("runtime-and-simulation", run=RUN)

# %% [markdown]
# ## 7 All results
#
# The first picture compares each of our numbers with the published one. The second compares every method with Helix.

# %%
show("agreement", run=RUN)

# %%
show("all-results", run=RUN)

# %% [markdown]
# ## Exercises
#
# 1. Give HiGHS ten minutes on `cluster10` without an initial plan (`initial=False`): what does it find?
# 2. Prune to 6 links in `geo24` and plan with the pattern program's links restricted: is anything lost?
# 3. Add a GPU of your own to the catalogue and repeat the last figure.
