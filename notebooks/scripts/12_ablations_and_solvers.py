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
# **Purpose.** What pruning and initial values are worth, how good the plans are against proven bounds, and how
# planning scales.
#
# **Takes** about twelve minutes on 2 cores where nothing is up to date; seconds with `FAST=1`, which shows the
# results that lie in `figures/`.

# %%
import os

from helix_kit.experiments.machinery.showing import show

FAST = os.environ.get("FAST") == "1"
# FAST=1 shows what lies in figures/; else what is out of date is run first.
RUN = not FAST

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
# Above what the plans could carry, below what they serve: on 42 machines the plan of least flow serves most.

# %%
show("ablations", run=RUN)

# %% [markdown]
# ## 3 Solver quality on ten nodes

# %% [markdown]
# The optimum is the one that Gurobi proved, as published, after more than an hour.

# %%
quality = show("solver-quality", run=RUN)
quality

# %% [markdown]
# ## 4 Value and bound over time

# %% [markdown]
# Solid lines are values, dashed ones proven bounds; the seconds are those of the machine that drew the picture. A
# program is solved where its two lines meet.

# %%
show("convergence", run=RUN)

# %% [markdown]
# ## 5 Beyond: scale, and modern machines

# %%
show("scaling", run=RUN)

# %% [markdown]
# The next picture is an estimate: nobody has measured these models on these machines here.

# %%
show("modern-models", run=RUN)

# %% [markdown]
# ## 6 The simulator beside real workers
#
# The same requests at the same times on four worker processes of this machine.

# %%
show("runtime-and-simulation", run=RUN)

# %% [markdown]
# ## 7 All of it
#
# Ours against published, number by number; and every method against Helix.

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
