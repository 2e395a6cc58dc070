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
# **Takes** about 40 s on 2 cores (25 s with `FAST=1`). Results in `figures/` are shown as they are; the section
# "Compute it yourself" is computed here. With `RUN = True` figures that are out of date are computed again first: about
# 1 minute where none is up to date (`figures/NAME.json` records the seconds of each).

# %%
import os

import pandas as pd

import helix_kit as hk
from helix_kit.experiments.figures.common.published import published_run
from helix_kit.experiments.machinery.showing import compare_sources, show

FAST = os.environ.get("FAST") == "1"
RUN = False
SECONDS = 120 if FAST else 600

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
# ## 4 Compute it yourself
#
# One bar of section 1, computed now: the published plan, requests and rules in our simulator. Change the three words
# and run the cell again. The number is that of the table in `figures/`, to the last digit.

# %%
MODEL, METHOD, MODE = "llama2-70b", "helix", "offline"  # or llama-30b; swarm, separate; online

now = published_run("geo", MODEL, METHOD, MODE).run().summary()["decode_tokens_per_s"]
pd.Series({"computed now": now, **compare_sources(geo).loc[MODEL, MODE, "geo", METHOD]}).round(2)

# %% [markdown]
# How much do the links between the regions cost? Each of them has about 0.1 gbps. The same machines are planned with
# these links narrower and wider by several factors, and each plan is simulated with requests that arrive at one rate.

# %%
METHOD, FACTORS, RATE, SEED = "pattern", (0.2, 1.0, 10.0), 0.3, 0  # or swarm, petals, separate

geo24 = hk.Cluster.preset("geo24")
requests = hk.Workload.azure_conversation(rate_per_s=RATE, duration_s=SECONDS + 60, seed=SEED)
rows = {}
for factor in FACTORS:
    links = tuple(
        link.model_copy(update={"bandwidth_gbps": link.bandwidth_gbps * (factor if link.bandwidth_gbps < 1 else 1)})
        for link in geo24.network.links
    )
    cluster = geo24.model_copy(update={"network": geo24.network.model_copy(update={"links": links})})
    plan = hk.plan(cluster, "llama2-70b", method=METHOD, seed=SEED, time_limit_s=3 if FAST else 10)
    summary = hk.simulate(plan, requests, warmup_s=60, duration_s=SECONDS, seed=SEED).summary()
    rows[f"{factor:g} x as wide"] = {
        "flow, tokens/s": plan.flow_tokens_per_s,
        "served, tokens/s": summary["decode_tokens_per_s"],
        "first token, s": summary["prompt_latency_s"]["avg"],
        "each further token, s": summary["decode_latency_s"]["avg"],
    }
pd.DataFrame(rows).T.round(2)

# %% [markdown]
# ## Exercises
#
# 1. Which crossing between regions carries most, and how busy is it (`Run.links` of a simulation)?
# 2. From which factor on do the regions cost no flow? And no latency? Change `FACTORS` in section 4.
# 3. Why does Swarm lose more than Helix?
