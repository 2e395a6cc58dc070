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
# **Takes** about a minute and a half on 2 cores. `make dashboard` opens this page in Voila, without the code.

# %%
import os

import pandas as pd

import helix_kit as hk
from helix_kit.analysis import changes, explain, losses, robustness, what_if
from helix_kit.widgets import ClusterEditor, PlacementEditor

FAST = os.environ.get("FAST") == "1"

# %% [markdown]
# ## 1 Propose a cluster
#
# Change the machines, regions, links and the model, then press **Solve**. **Stop** ends the solve and keeps the best
# plan so far. When you move a link slider, the page shows at once what the present placement carries over the new
# links.

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
editor = ClusterEditor(cluster, "llama2-70b")
editor.limit.value = 10
editor.solve()
editor.wait()
editor

# %% [markdown]
# ## 2 Edit the placement
#
# Click a bar and use the steppers, or drag its ends. The page explains what is wrong with an edit. **Fix the rest**
# keeps your edits and moves the other machines. **Undo** takes an edit back.

# %%
plan = editor.plan
hands_on = PlacementEditor(plan)
hands_on.wait()
hands_on

# %% [markdown]
# ## 3 How much does the plan serve?
#
# Flow counts the prompt and output tokens that could pass if machines never waited for each other. Users see less:
# prefill delays decode, KV caches limit the number of requests in flight, and each token pays for every hop. So this
# section simulates the plans with the KV cache always full. `objective="served"` plans for the simulated throughput
# instead of the flow.

# %%
SECONDS = 120 if FAST else 300
full_house = hk.Workload.offline(duration_s=SECONDS + 60)
rows, found = {}, {}
for objective in ("flow", "served"):
    made = found[objective] = hk.plan(plan.cluster, plan.model, objective=objective, time_limit_s=6 if FAST else 20)
    summary = hk.simulate(made, full_house, mode="offline", warmup_s=60, duration_s=SECONDS).summary()
    rows[f"planned for {objective}"] = {
        "flow, tokens/s": made.flow_tokens_per_s,
        "answers, tokens/s": summary["decode_tokens_per_s"],
        "prompts and answers, tokens/s": summary["total_tokens_per_s"],
        "first token, s": summary["prompt_latency_s"]["avg"],
        "each further token, s": summary["decode_latency_s"]["avg"],
        "deepest pipeline": max(len(stages) for stages, _ in made.pipelines),
    }
pd.DataFrame(rows).T.round(2)

# %% [markdown]
# The search also found other good plans: some serve more tokens, some have a lower latency. `pareto_pick` chooses
# among them.

# %%
# %matplotlib inline
found["served"].pareto()

# %% [markdown]
# ## 4 What limits it, and what would help?
#
# Each change is planned again, not extrapolated. Prices come from the catalogue. `gain_per_usd` is the gain in
# tokens/s for each dollar per hour.

# %%
print(explain(plan))

# %%
answers = what_if(plan, changes(plan, lose=not FAST), time_limit_s=3 if FAST else 6)
answers[["change", "flow_tokens_per_s", "gain_tokens_per_s", "gain_percent", "usd_per_hour", "gain_per_usd"]].round(2)

# %% [markdown]
# ## 5 What if a machine fails?
#
# The flow that is left when one machine fails, before a new plan is made:

# %%
losses(plan).head(8).round(1)

# %% [markdown]
# ## 6 What if the profiles are wrong?
#
# The speed of each kind of machine differs by up to 20 % from its profile, independently of the others. The
# placements stay as they were planned. Does this one still beat the heuristics?

# %%
robustness(plan, error=0.2, samples=10 if FAST else 40, seed=0).round(1)

# %% [markdown]
# ## Exercises
#
# 1. Your budget is 5 dollars an hour more. Which machines do you add, and where?
# 2. How low may the bandwidth between the cities be before it limits the flow? Use the slider.
# 3. Take the worst machine of section 5 out by hand (untick "holds layers"), then let **Fix the rest** repair the
#    plan. How much comes back?
# 4. Save your own cluster to YAML, load it in [01](01_define_a_cluster.ipynb), and let a colleague explain its
#    bottleneck.
