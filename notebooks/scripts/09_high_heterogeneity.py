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
# **Purpose.** The cluster has 42 nodes of seven kinds. Separate pipelines for each kind leave machines unused; mixed
# pipelines do not.
#
# **Takes** seconds with `FAST=1`, which shows the results in `figures/`. Otherwise figures that are out of date are
# computed again, which takes minutes (`figures/NAME.json` records the seconds of each).

# %%
import os

import pandas as pd

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
# Each kind of machine is up to 20 % faster or slower than the plan assumed. Bars show the planned flow and circles
# the mean over random draws of the errors. Lines reach down to the worst 5 % of the draws (thick) and to the worst
# draw (thin).

# %%
show("robustness", run=RUN)

# %% [markdown]
# ## Exercises
#
# 1. Which kinds of machine do the separate pipelines leave unused?
# 2. Take away the four A100 and plan again with `helix_kit.analysis.losses`: which kind is missed most?
# 3. Repeat the robustness figure with an error of 40 %.
