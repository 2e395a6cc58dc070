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
# **Takes** about 20 s on 2 cores (20 s with `FAST=1`). Results in `figures/` are shown as they are; the section
# "Compute it yourself" is computed here. With `RUN = True` figures that are out of date are computed again first: about
# 2 minutes where none is up to date (`figures/NAME.json` records the seconds of each).

# %%
import os

import pandas as pd

import helix_kit as hk
from helix_kit.experiments import experiments
from helix_kit.experiments.figures.common.published import published_run
from helix_kit.experiments.machinery.showing import compare_sources, show

FAST = os.environ.get("FAST") == "1"
RUN = False
SECONDS = 120 if FAST else 600

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
# The same with worker processes, where they have been measured (`make figures-real`): their steps are paced to the
# profiles of the 24 machines, while scheduling, batching, KV pages and messages are real.

# %%
show("real-single-cluster") if "real-single-cluster" in experiments() else "not measured yet"

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
# ## 5 Compute it yourself
#
# One bar of section 1, computed now: the published plan, requests and rules in our simulator. Change the three words
# and run the cell again. The number is that of the table in `figures/`, to the last digit.

# %%
MODEL, METHOD, MODE = "llama2-70b", "helix", "offline"  # or llama-30b; swarm, separate; online

now = published_run("single", MODEL, METHOD, MODE).run().summary()["decode_tokens_per_s"]
pd.Series({"computed now": now, **compare_sources(single).loc[MODEL, MODE, "single", METHOD]}).round(2)

# %% [markdown]
# A run of your own: a method makes a plan, and requests arrive at several rates. Up to some rate the plan keeps up:
# the tokens served follow the tokens asked for, and latencies stay. Beyond it, queues grow for as long as the run
# lasts.

# %%
METHOD, RATES, SEED = "pattern", (0.2, 0.4, 0.8), 0  # or swarm, petals, separate, proportional, parallax

plan = hk.plan("single24", "llama2-70b", method=METHOD, seed=SEED, time_limit_s=20)
rows = {}
for rate in RATES:
    requests = hk.Workload.azure_conversation(rate_per_s=rate, duration_s=SECONDS + 60, seed=SEED)
    summary = hk.simulate(plan, requests, warmup_s=60, duration_s=SECONDS, seed=SEED).summary()
    asked = sum(r.output_tokens for r in requests) / (SECONDS + 60)
    rows[f"{rate} requests/s"] = {
        "asked for, tokens/s": asked,
        "served, tokens/s": summary["decode_tokens_per_s"],
        "first token, s": summary["prompt_latency_s"]["avg"],
        "each further token, s": summary["decode_latency_s"]["avg"],
    }
pd.DataFrame(rows).T.round(2)

# %% [markdown]
# ## Exercises
#
# 1. Which method has the lowest prompt latency online, and what load was it given
#    (`data/published/simulations.json`)?
# 2. Run the published Helix plan at Swarm's load: take the simulation from
#    `published_run("single", "llama2-70b", "helix", "online").simulations()` and replace its workload.
# 3. In section 5, find the rate at which `swarm` falls behind, and the one at which `pattern` does.
# 4. Plan for `objective="served"` with a cap on depth (`max_stages=12`) and serve it.
