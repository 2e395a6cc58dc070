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
# **Purpose.** One placement, four schedulers: what choosing pipelines by flow is worth.
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
# ## 1 Throughput and prompt latency

# %% [markdown]
# The same schedulers on Helix's published placement and, in green, on our plan that is made to serve.

# %%
scheduling = show("scheduling-deep-dive", run=RUN)
scheduling

# %%
compare_sources(scheduling)

# %% [markdown]
# ## 2 Congestion, machine by machine
#
# Where a machine computes, and where it stands still with finished work waiting for a link: one column a machine, in
# per cent of the time. Helix's scheduler serves more tokens with machines that compute less or as much.

# %%
congestion = show("congestion", run=RUN)
congestion

# %% [markdown]
# The KV cache at its fullest, as a share of what there is: a scheduler that fills one machine stops them all.

# %%
fullest = congestion.table.pivot_table(index=["setup", "node"], columns="method", values="kv_peak", sort=False)
fullest.groupby("setup", sort=False).max().round(2)

# %% [markdown]
# ## Exercises
#
# 1. Give the random scheduler fewer requests in flight: at what number is it best?
# 2. Write a policy of your own (`helix_kit.scheduling.Policy`) and pass it to `hk.simulate`.
# 3. Which links are busiest under each scheduler (`Run.links`)?
