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
# # 07 Single cluster (paper, section 6.3)
#
# **Purpose.** Helix, Swarm and separate pipelines on 24 nodes of one data centre, with LLaMA 30B and LLaMA-2 70B. The
# notebook compares the published results, our simulation of the published plans, and our own plans.
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
# ## 1 Throughput and latency
#
# Bars show decode throughput. Boxes show latencies in the online setting: quartiles, with whiskers at 5 and 95 %.
# `separate` is one pipeline for each kind of machine. Each published method has the load that the paper chose for it.
# Our own plans have the load of Helix.

# %%
single = show("single-cluster", run=RUN)
single

# %%
compare_sources(single)

# %% [markdown]
# ## 2 Helix over the baselines

# %%
ours = single.table.query("metric == 'decode_tokens_per_s' and source == 'ours'")
wide = ours.pivot_table(index=["model", "mode"], columns="method", values="value", sort=False)
wide.rdiv(wide["helix"], axis=0).round(2)

# %% [markdown]
# Above 1, Helix serves that many times as much as the method. Below 1, the method (our own plan) serves more than
# Helix.

# %% [markdown]
# ## 3 Our plans
#
# Left: the max flow of each plan as a share of the proven bound. Right: what the plan serves offline. The plan with
# the largest flow is not the plan that serves most: long chains of machines carry much flow, but make every decode
# step longer.

# %%
show("own-plans", run=RUN)

# %% [markdown]
# ## 4 The same load rules for every method
#
# In section 1 each published method has its own load. Here all methods get the requests of Helix: once at the same
# rate, and once at rates in proportion to the max flow of each plan. The black line over a bar is the offered load. A
# plan whose bar stays below the line falls behind.

# %%
equal = show("equal-load", run=RUN)
equal

# %%
served = equal.table.query("metric == 'decode_tokens_per_s'")
served.pivot_table(index=["setup", "source"], columns="method", values="value", sort=False).round(1)

# %% [markdown]
# ## Exercises
#
# 1. Which method has the lowest prompt latency online, and what load was it given
#    (`data/published/simulations.json`)?
# 2. Run the published Helix plan at Swarm's load: take the simulation from
#    `published_run("single", "llama2-70b", "helix", "online").simulations()` and replace its workload.
# 3. Plan for `objective="served"` with a cap on depth (`max_stages=12`) and serve it.
