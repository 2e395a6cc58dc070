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
# **Purpose.** Helix, Swarm and separate pipelines on 24 nodes of one data centre, LLaMA 30B and LLaMA-2 70B: what
# was
# published, our simulator on the published plans, and our own plans.
#
# **Takes** about six minutes on 2 cores where nothing is up to date; seconds with `FAST=1`, which shows the results
# that lie in `figures/`.

# %%
import os

from helix_kit.experiments.machinery.showing import compare_sources, show

FAST = os.environ.get("FAST") == "1"
# FAST=1 shows what lies in figures/; else what is out of date is run first.
RUN = not FAST

# %% [markdown]
# ## 1 Throughput and latency
#
# Bars are decode throughput, boxes the latencies of requests that come over time (25, 50 and 75 %; whiskers 5 and
# 95 %). `separate` is one pipeline for each kind of machine. Each published method has the load that the paper chose
# for it; our own plans have Helix's.

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
# Numbers above 1: Helix serves that many times as much. Below 1, our own plans serve more than Helix's.

# %% [markdown]
# ## 3 Our plans
#
# Left, the max flow of each plan as a share of what is proven possible; right, what it serves offline. The plan of
# most flow is not the plan that serves most: long chains of machines carry flow, and make every decode step longer.

# %%
show("own-plans", run=RUN)

# %% [markdown]
# ## 4 The same load rules for every method
#
# Above, each published method has a load of its own. Here all get the requests that Helix got: at the same rate, and
# at rates in proportion to each plan's max flow. The black line over a bar is what is offered: a bar that stays below
# belongs to a plan that falls behind.

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
# 2. Run the published Helix plan at Swarm's load: take the arguments of `hk.simulate` from
#    `published.find("single", "llama2-70b", "helix", "online").calls()` and change the workload.
# 3. Plan for `objective="served"` with a cap on depth (`max_stages=12`) and serve it.
