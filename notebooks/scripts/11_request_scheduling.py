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
# # 11 Request scheduling (paper, section 6.7)
#
# **Purpose.** Four schedulers run on the same placement. This shows the effect of choosing pipelines by flow.
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
# ## 1 Throughput and prompt latency

# %% [markdown]
# The schedulers run on the published placement of Helix and, in green, on our plan for served throughput.

# %%
scheduling = show("scheduling-deep-dive", run=RUN)
scheduling

# %%
compare_sources(scheduling)

# %% [markdown]
# ## 2 Congestion, machine by machine
#
# Each column is a machine. It shows, in per cent of the time, how long the machine computes, and how long it waits
# because finished work waits for a link. The Helix scheduler serves more tokens with machines that compute no more.

# %%
congestion = show("congestion", run=RUN)
congestion

# %% [markdown]
# The largest use of the KV cache, as a share of its size. A scheduler that fills the cache of one machine stops all
# of them.

# %%
fullest = congestion.table.pivot_table(index=["setup", "node"], columns="method", values="kv_peak", sort=False)
fullest.groupby("setup", sort=False).max().round(2)

# %% [markdown]
# ## Exercises
#
# 1. Give the random scheduler fewer requests in flight: at what number is it best?
# 2. Write a policy of your own (`helix_kit.scheduling.Policy`) and pass it to `hk.simulate`.
# 3. Which links are busiest under each scheduler (`Run.links`)?
