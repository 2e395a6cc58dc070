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
# **Purpose.** The same 24 nodes stand in three regions behind slow links. How much does each method lose to the
# network?
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
# Bars show decode throughput. Boxes show latencies in the online setting: quartiles, with whiskers at 5 and 95 %. The
# paper gives no prototype values for this section: its values are simulated. Each published method has the load that
# the paper chose for it. Our own plans have the load of Helix.

# %%
geo = show("geo-distributed", run=RUN)
geo

# %%
compare_sources(geo)

# %% [markdown]
# ## 2 The topology
#
# The published plan with its flow, and the pipelines of two requests (Figure 4). The x axis shows the layers. A bar
# spans the layers that a machine holds and is filled to the used share of its capacity. Each crossing between regions
# costs about 50 ms and shares a slow link.

# %%
show("topology", run=RUN)

# %% [markdown]
# ## 3 What the regions cost
#
# Decode throughput in three regions, as a share of the throughput in one region.

# %%
single = show("single-cluster")
(compare_sources(geo)["ours"].droplevel("setup") / compare_sources(single)["ours"].droplevel("setup")).round(2)

# %% [markdown]
# ## Exercises
#
# 1. Which crossing between regions carries most, and how busy is it (`Run.links` of a simulation)?
# 2. Double the bandwidth between regions in a copy of `geo24` and plan again: does the flow double?
# 3. Why does Swarm lose more than Helix?
