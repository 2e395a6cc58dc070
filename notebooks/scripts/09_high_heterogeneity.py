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
# # 09 High heterogeneity (paper, section 6.5)
#
# **Purpose.** 42 nodes of seven kinds: separate pipelines leave machines over, mixed pipelines and a flow do not.
#
# **Takes** about five minutes on 2 cores where nothing is up to date; seconds with `FAST=1`, which shows the results
# that lie in `figures/`.

# %%
import os

import pandas as pd

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
hetero = show("high-heterogeneity", run=RUN)
hetero

# %%
compare_sources(hetero)

# %% [markdown]
# ## 2 Latency, by percentile

# %%
pd.concat(
    {
        "prompt latency p50, s": compare_sources(hetero, "prompt_latency_p50_s"),
        "decode latency p50, s": compare_sources(hetero, "decode_latency_p50_s"),
    },
    axis=1,
)

# %% [markdown]
# ## 3 When the profiles are wrong
#
# Each kind of machine up to 20 % faster or slower than the plan assumed. Bars are the flow as planned, circles the
# mean over the worlds, lines reach down to the worst twentieth (thick) and to the worst world (thin).

# %%
show("robustness", run=RUN)

# %% [markdown]
# ## Exercises
#
# 1. Which kinds of machine do the separate pipelines leave unused?
# 2. Take away the four A100 and plan again with `helix_kit.analysis.losses`: which kind is missed most?
# 3. Repeat the robustness figure with an error of 40 %.
