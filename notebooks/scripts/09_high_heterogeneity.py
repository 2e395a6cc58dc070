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
# **Takes** about 50 s on 2 cores (45 s with `FAST=1`). Results in `figures/` are shown as they are; the section
# "Compute it yourself" is computed here. With `RUN = True` figures that are out of date are computed again first: about
# 1 minute where none is up to date (`figures/NAME.json` records the seconds of each).

# %%
import os

import pandas as pd

import helix_kit as hk
from helix_kit.analysis import robustness
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
# ## 4 Compute it yourself
#
# One bar of section 1, computed now: the published plan, requests and rules in our simulator. Change the two words and
# run the cell again. The number is that of the table in `figures/`, to the last digit.

# %%
METHOD, MODE = "helix", "offline"  # or swarm, separate, separate_plus; online

now = published_run("hetero42", "llama2-70b", METHOD, MODE).run().summary()["decode_tokens_per_s"]
pd.Series({"computed now": now, **compare_sources(hetero).loc["llama2-70b", MODE, "hetero42", METHOD]}).round(2)

# %% [markdown]
# Take a kind of machine away, and plan again. Which kind is missed most for its number of machines? Differences below
# a per cent mean little: each plan is within about one per cent of its bound.

# %%
KINDS, METHOD, SEED = ("A100-40G", "L4", "T4x2"), "pattern", 0  # more kinds: hetero42.kind_counts

hetero42 = hk.Cluster.preset("hetero42")
rows = {}
for kind in (None, *KINDS):
    rest = [n.name for n in hetero42.nodes if n.kind != kind]
    cluster = hetero42.subset(rest, f"without {kind}" if kind else "hetero42")
    plan = hk.plan(cluster, "llama2-70b", method=METHOD, seed=SEED, time_limit_s=4 if FAST else 10)
    rows[cluster.name] = {"machines": len(rest), "flow, tokens/s": plan.flow_tokens_per_s}
table = pd.DataFrame(rows).T
whole = table.loc["hetero42"]
lost = whole - table
table["lost for each machine, tokens/s"] = lost["flow, tokens/s"] / lost["machines"]
table.round(1)

# %% [markdown]
# The picture of section 3 with errors and draws of your own:

# %%
ERROR, SAMPLES, SEED = 0.4, 10 if FAST else 30, 1

best = hk.plan(hetero42, "llama2-70b", time_limit_s=4 if FAST else 10)
robustness(best, error=ERROR, samples=SAMPLES, seed=SEED).round(1)

# %% [markdown]
# ## Exercises
#
# 1. Which kinds of machine do the separate pipelines leave unused?
# 2. Section 4 takes a whole kind away. What does one machine less cost (`helix_kit.analysis.losses`)?
# 3. At which error does the plan lose to a heuristic in a tenth of the draws?
