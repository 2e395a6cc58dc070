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
# **Purpose.** The placements of Helix, Swarm and Petals run under the same scheduler. This shows the effect of the
# placement alone.
#
# **Takes** seconds with `FAST=1`, which shows the results in `figures/`. Otherwise figures that are out of date are
# computed again, which takes minutes (`figures/NAME.json` records the seconds of each).

# %%
import os

from helix_kit.experiments.machinery.showing import compare_sources, show

FAST = os.environ.get("FAST") == "1"
# FAST=1 shows the results in figures/. Otherwise results that are out of date are computed first.
RUN = not FAST

# %% [markdown]
# ## 1 Where the layers go

# %% [markdown]
# A bar spans the layers of a machine and is filled to the share of its capacity that the max flow uses. Swarm gives
# the fast A100 as many layers as the slow T4.

# %%
show("placement-pictures", run=RUN)

# %% [markdown]
# ## 2 What the placements serve

# %% [markdown]
# All placements run under the Helix scheduler. Our own plans stand beside the published ones.

# %%
placement = show("placement-deep-dive", run=RUN)
placement

# %%
compare_sources(placement)

# %% [markdown]
# ## 3 Max flow by method
#
# The max flow of each method as a share of the proven bound, with open solvers only. HiGHS starts the paper's program
# from the better heuristic plan and rarely improves it in half a minute. The pattern program needs no start.

# %%
show("placement-methods", run=RUN)

# %% [markdown]
# ## Exercises
#
# 1. Compare the ratio Helix / Swarm of throughput with that of max flow: which is larger, and why?
# 2. Simulate the Petals placement of `single24` with `flow_split="any"` and `"balanced"`.
# 3. Draw the plan that serves most with `plan.show()` and count its stages.
