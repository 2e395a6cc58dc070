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
# # 10 Model placement (paper, section 6.6)
#
# **Purpose.** Helix's, Swarm's and Petals' placements under one scheduler: what the placement alone is worth.
#
# **Takes** about two minutes on 2 cores where nothing is up to date; seconds with `FAST=1`, which shows the results
# that lie in `figures/`.

# %%
import os

from helix_kit.experiments.machinery.showing import compare_sources, show

FAST = os.environ.get("FAST") == "1"
# FAST=1 shows what lies in figures/; else what is out of date is run first.
RUN = not FAST

# %% [markdown]
# ## 1 Where the layers go

# %% [markdown]
# A bar reaches from the first to the last layer of a machine and is filled to the share of its capacity that the max
# flow uses: Swarm gives the fast A100 as many layers as the slow T4.

# %%
show("placement-pictures", run=RUN)

# %% [markdown]
# ## 2 What the placements serve

# %% [markdown]
# All under Helix's scheduler, our own plans beside the published ones.

# %%
placement = show("placement-deep-dive", run=RUN)
placement

# %%
compare_sources(placement)

# %% [markdown]
# ## 3 Max flow by method
#
# As a share of the proven bound, with open solvers only. HiGHS starts the paper's program from the better heuristic
# and rarely gets beyond it in half a minute; the pattern program needs no start.

# %%
show("placement-methods", run=RUN)

# %% [markdown]
# ## Exercises
#
# 1. Compare the ratio Helix / Swarm of throughput with that of max flow: which is larger, and why?
# 2. Simulate the Petals placement of `single24` with `flow_split="any"` and `"balanced"`.
# 3. Draw the plan that serves most with `plan.show()` and count its stages.
