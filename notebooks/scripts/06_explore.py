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
# # 06 Explore: propose a cluster, edit a placement, ask what if
#
# **Purpose.** This notebook answers "what throughput can I get, what limits it, and what should I buy next?" without
# code. Edit the cluster, solve, and change the placement by hand: the page shows at once what each change costs and
# why.
#
# **Takes** about two minutes on 2 cores (45 s with `FAST=1`). `make dashboard` opens this page in Voila, without the
# code. The dashboard shows each part as soon as it is computed, and keeps results until the next visit: that is what
# `remembered` does. In a notebook `remembered(f, x)` is just `f(x)`.

# %%
import os

import pandas as pd

import helix_kit as hk
from helix_kit.analysis import changes, explain, key_figures, losses, robustness, what_if
from helix_kit.widgets import ClusterEditor, PlacementEditor
from helix_kit.widgets.visits import remembered

FAST = os.environ.get("FAST") == "1"

# %% [markdown]
# ## 1 Propose a cluster
#
# Change the machines, regions, links and the model, then press **Solve**. The curve shows the value and the proven
# bound while the solve goes on, and the picture shows the best placement so far. **Stop** ends the solve and keeps
# it. When you move a link slider, or type a bandwidth, the page shows at once what the solved placement carries over
# the new links, in per cent of the solved plan.

# %%
cluster = hk.Cluster.model_validate(
    {
        "name": "two-cities",
        "coordinator": {"region": "paris"},
        "nodes": [
            {"gpu": "A100-40G", "count": 4, "region": "paris"},
            {"gpu": "L4", "count": 6, "region": "oslo"},
            {"gpu": "T4", "count": 8, "region": "oslo"},
        ],
        "network": {
            "within_region": {"bandwidth_gbps": 10, "latency_ms": 1},
            "between_regions": {"bandwidth_gbps": 0.2, "latency_ms": 30},
        },
    }
)
editor = ClusterEditor(cluster, "llama2-70b", keep="06_explore")
editor.limit.value = 10
if editor.plan is None:
    editor.solve()
editor

# %% [markdown]
# ## 2 Edit the placement
#
# Click a bar and use the steppers, or drag its ends. The page explains what is wrong with an edit. **Fix the rest**
# keeps your edits and moves the other machines. **Undo** takes an edit back.

# %%
editor.wait()
plan = editor.plan
hands_on = PlacementEditor(plan)
hands_on

# %% [markdown]
# ## 3 How much does the plan serve?
#
# Flow counts the prompt and output tokens that could pass if machines never waited for each other. Users see less:
# prefill delays decode, KV caches limit the number of requests in flight, and each token pays for every hop. So this
# section simulates the plans with the KV cache always full. `objective="served"` plans for the simulated throughput
# instead of the flow. `key_figures` are the figures that both editors show: the simulation begins with two minutes that
# do not count, because a backlog begins with prompts on empty machines.

# %%
plans, rows = {}, {}
for objective in ("flow", "served"):
    plans[objective] = remembered(
        hk.plan, plan.cluster, plan.model, objective=objective, time_limit_s=6 if FAST else 40
    )
    rows[f"planned for {objective}"] = remembered(key_figures, plans[objective]).to_dict()
table = pd.DataFrame(rows)
table.drop(index=["unpriced", "warmup_s", "measured_s"]).astype(float).round(2)

# %% [markdown]
# The search also found other good plans: some serve more tokens, some have a lower latency. `pareto_pick` chooses
# among them. The search compares plans in their steady state, over several streams of requests, so its numbers differ a
# little from those above.

# %%
plans["served"].pareto()

# %% [markdown]
# ## 4 What limits it, and what would help?
#
# Each change is planned again, not extrapolated. Prices come from the catalogue. `gain_per_usd` is the gain in
# tokens/s for each dollar per hour; for a loss, it is what is given up for each dollar saved.

# %%
print(explain(plan))

# %%
answers = remembered(what_if, plan, changes(plan, lose=not FAST), time_limit_s=3 if FAST else 6)
answers[["change", "tokens_per_s", "gain_tokens_per_s", "gain_percent", "usd_per_hour", "gain_per_usd"]].round(2)

# %% [markdown]
# ## 5 What if a machine fails?
#
# The flow that is left when one machine fails, before a new plan is made:

# %%
remembered(losses, plan).head(8).round(1)

# %% [markdown]
# ## 6 What if the profiles are wrong?
#
# The speed of each kind of machine differs by up to 20 % from its profile, independently of the others. The
# placements stay as they were planned. Does this one still beat the heuristics?

# %%
remembered(robustness, plan, error=0.2, samples=10 if FAST else 40, seed=0).round(1)

# %% [markdown]
# ## Exercises
#
# 1. Your budget is 5 dollars an hour more. Which machines do you add, and where?
# 2. How low may the bandwidth between the cities be before it limits the flow? Use the slider, then type the value.
# 3. Take the worst machine of section 5 out by hand (untick "holds layers"), then let **Fix the rest** repair the
#    plan. How much comes back?
# 4. Save your own cluster to YAML, load it in [01](01_define_a_cluster.ipynb), and let a colleague explain its
#    bottleneck.
