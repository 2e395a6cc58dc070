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
# **Purpose.** Four schedulers run on the same placement, simulated, and three of them served by worker processes. This
# shows the effect of choosing pipelines by flow.
#
# **Takes** about 2 minutes on 2 cores (1.5 minutes with `FAST=1`). Results in `figures/` are shown as they are, and
# sections 3 and 4 are computed here. With `RUN = True` figures that are out of date are computed again first: about
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
# ## 3 Compute it yourself
#
# One bar of section 1, computed now: the published placement under one scheduler, in three regions. Change the word and
# run the cell again. The number is that of the table in `figures/`, to the last digit.

# %%
POLICY = "helix"  # or swarm, random, shortest_queue

now = published_run("scheduling", "llama2-70b", POLICY, "offline").run().summary()["decode_tokens_per_s"]
setup = "three regions (geo24)"
pd.Series({"computed now": now, **compare_sources(scheduling).loc["llama2-70b", "offline", setup, POLICY]}).round(2)

# %% [markdown]
# Schedulers on a placement, with a load and a seed of your own choice. A seed changes the requests and the random
# choices; the spread over seeds tells which differences mean something.

# %%
CLUSTER, METHOD, RATE, SEEDS = "geo24", "petals", 0.4, (0, 1)
POLICIES = ("helix", "swarm", "random", "shortest_queue")

plan = hk.plan(CLUSTER, "llama2-70b", method=METHOD, time_limit_s=20)
rows = []
for seed in SEEDS:
    requests = hk.Workload.azure_conversation(rate_per_s=RATE, duration_s=SECONDS + 60, seed=seed)
    for policy in POLICIES:
        run = hk.simulate(plan, requests, policy=policy, warmup_s=60, duration_s=SECONDS, seed=seed)
        summary = run.summary()
        rows.append(
            {
                "policy": policy,
                "seed": seed,
                "served, tokens/s": summary["decode_tokens_per_s"],
                "first token, s": summary["prompt_latency_s"]["avg"],
                "each further token, s": summary["decode_latency_s"]["avg"],
            }
        )
pd.DataFrame(rows).set_index(["policy", "seed"]).unstack().round(2)

# %% [markdown]
# The last of these runs:

# %%
run.plot()

# %% [markdown]
# ## 4 The same with worker processes
#
# Three schedulers on one placement of the small cluster `laptop`. Each serves the same backlog by four processes, paced
# to their machines, and is simulated by the same rules. Scheduling, batching, KV pages and messages are real. The
# intervals are wide, because so few requests end in a run this short.

# %%
served = hk.evaluate(
    "laptop",
    "SmolLM2-135M",
    methods="helix,random,shortest-queue",
    modes="offline",
    workers="emulated",
    minutes=0.5 if FAST else 1.0,
    time_scale=1,
    time_limit_s=10,
)
served.plot()

# %%
served.differences().set_index(["method", "metric"]).round(3)

# %% [markdown]
# ## Exercises
#
# 1. Give the random scheduler fewer requests in flight: at what number is it best?
# 2. Write a policy of your own (`helix_kit.scheduling.Policy`) and add it to `POLICIES` in section 3.
# 3. Which links are busiest under each scheduler (`Run.links`)?
