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
# # 08 Three regions (paper, section 6.4)
#
# **Purpose.** The same 24 nodes in three regions behind slow links: how much each method loses to the network.
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
# 95 %). No prototype values are given for this section: the published ones are simulated. Each published method has
# the load that the paper chose for it; our own plans have Helix's.

# %%
geo = show("geo-distributed", run=RUN)
geo

# %%
compare_sources(geo)

# %% [markdown]
# ## 2 The topology
#
# The published plan with its flow, and the pipelines of two requests (Figure 4): x is the layer, a bar what a machine
# holds, filled to the share of it in use. Each change of region costs about 50 ms and shares a slow link.

# %%
show("topology", run=RUN)

# %% [markdown]
# ## 3 What the regions cost
#
# Decode throughput in three regions as a share of that in one cluster.

# %%
single = show("single-cluster")
(compare_sources(geo)["ours"].droplevel("setup") / compare_sources(single)["ours"].droplevel("setup")).round(2)

# %% [markdown]
# ## Exercises
#
# 1. Which crossing between regions carries most, and how busy is it (`Run.links` of a simulation)?
# 2. Double the bandwidth between regions in a copy of `geo24` and plan again: does the flow double?
# 3. Why does Swarm lose more than Helix?
