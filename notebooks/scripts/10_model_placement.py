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
# # 10 Model placement (paper, section 6.6)
#
# **Purpose.** The placements of Helix, Swarm and Petals run under the same scheduler. This shows the effect of the
# placement alone.
#
# **Takes** about 30 s on 2 cores (25 s with `FAST=1`). Results in `figures/` are shown as they are; the section
# "Compute it yourself" is computed here. With `RUN = True` figures that are out of date are computed again first: about
# 3 minutes where none is up to date (`figures/NAME.json` records the seconds of each).

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
# ## 1 Where the layers go

# %% [markdown]
# A bar spans the layers of a machine and is filled to the share of its capacity that the max flow uses. Swarm gives
# the fast A100 as many layers as the slow T4.

# %%
show("placement-pictures", run=RUN)

# %% [markdown]
# ## 2 What the placements serve

# %% [markdown]
# All placements run under the Helix scheduler. Our own plans stand beside the published ones.

# %%
placement = show("placement-deep-dive", run=RUN)
placement

# %%
compare_sources(placement)

# %% [markdown]
# ## 3 Max flow by method
#
# The max flow of each method as a share of the proven bound, with open solvers only. HiGHS starts the paper's program
# from the better heuristic plan and rarely improves it in half a minute. The pattern program needs no start.

# %%
show("placement-methods", run=RUN)

# %% [markdown]
# ## 4 Compute it yourself
#
# One bar of section 2, computed now: the published placement under the Helix scheduler, in three regions. Change the
# word and run the cell again. The number is that of the table in `figures/`, to the last digit.

# %%
METHOD = "helix"  # or swarm, petals

now = published_run("placement", "llama2-70b", METHOD, "offline").run().summary()["decode_tokens_per_s"]
setup = "three regions (geo24)"
pd.Series({"computed now": now, **compare_sources(placement).loc["llama2-70b", "offline", setup, METHOD]}).round(2)

# %% [markdown]
# Placements of your own choice under one scheduler. Flow is what could pass; served is what does when requests arrive
# at `RATE`. The third column counts the machines that a request passes: each of them adds to every token's time.

# %%
CLUSTER, METHODS, RATE, SEED = "single24", ("pattern", "swarm", "petals", "separate"), 0.8, 0

requests = hk.Workload.azure_conversation(rate_per_s=RATE, duration_s=SECONDS + 60, seed=SEED)
plans, rows = {}, {}
for method in METHODS:
    plan = plans[method] = hk.plan(CLUSTER, "llama2-70b", method=method, seed=SEED, time_limit_s=20)
    summary = hk.simulate(plan, requests, warmup_s=60, duration_s=SECONDS, seed=SEED).summary()
    rows[method] = {
        "flow, tokens/s": plan.flow_tokens_per_s,
        "served, tokens/s": summary["decode_tokens_per_s"],
        "machines in the deepest pipeline": max(len(stages) for stages, _ in plan.pipelines),
        "first token, s": summary["prompt_latency_s"]["avg"],
        "each further token, s": summary["decode_latency_s"]["avg"],
    }
pd.DataFrame(rows).T.round(2)

# %%
plans["swarm"].show()

# %% [markdown]
# ## Exercises
#
# 1. Compare the ratio Helix / Swarm of throughput with that of max flow: which is larger, and why?
# 2. Simulate the Petals placement of `single24` with `flow_split="any"` and `"balanced"`.
# 3. Which method of section 4 gives the lowest time for each further token, and why? Add `proportional` and `parallax`.
