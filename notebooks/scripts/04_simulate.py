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
# # 04 Simulate: offline, online, schedulers, fidelity
#
# **Purpose.** This notebook simulates what a plan serves, which is not the same as its flow. It shows offline
# throughput and online latency, compares schedulers and placements, checks how far the simulator can be trusted, and
# shows where plans saturate and how many requests keep an SLO.
#
# **Takes** about two minutes on 2 cores (40 s with `FAST=1`).

# %%
import os

import matplotlib.pyplot as plt
import pandas as pd

import helix_kit as hk
from helix_kit.analysis import compare
from helix_kit.analysis.compare import plot_comparison

FAST = os.environ.get("FAST") == "1"
SECONDS = 120 if FAST else 600

cluster, model = hk.Cluster.preset("single24"), hk.Model.preset("llama2-70b")
plan = hk.plan(cluster, model, time_limit_s=30)

# %% [markdown]
# ## 1 Online: requests arrive over time
#
# Prompt latency is the time from the arrival of a request to its first token. Decode latency is the time of each
# further token. Change the rates and run the cell again.

# %%
rows = {}
for rate in (0.1, 0.3, 0.6):
    run = hk.simulate(
        plan, hk.Workload.azure_conversation(rate_per_s=rate, duration_s=SECONDS + 60), warmup_s=60, duration_s=SECONDS
    )
    summary = run.summary()
    rows[f"{rate} requests/s"] = {
        "decode tokens/s": summary["decode_tokens_per_s"],
        "prompt avg, s": summary["prompt_latency_s"]["avg"],
        "prompt p95, s": summary["prompt_latency_s"]["p95"],
        "decode avg, s": summary["decode_latency_s"]["avg"],
        "decode p95, s": summary["decode_latency_s"]["p95"],
    }
pd.DataFrame(rows).T.round(2)

# %% [markdown]
# The last of these runs:

# %%
run.plot()

# %% [markdown]
# ## 2 Offline: the KV cache is always full
#
# A backlog of requests waits from the start, and as many requests are in flight as the KV caches hold. This case
# shows the throughput of a plan. It also shows the price of deep pipelines: each token passes every stage, one after
# another.

# %%
offline = hk.simulate(
    plan, hk.Workload.offline(duration_s=SECONDS + 60), mode="offline", warmup_s=60, duration_s=SECONDS
)
use = pd.DataFrame(
    {name: {"busy": n.busy, "blocked": n.blocked, "starved": n.starved} for name, n in offline.nodes.items()}
).T
print(
    f"{offline.summary()['decode_tokens_per_s']:.0f} tokens/s decoded, "
    f"machines are busy {use['busy'].mean():.0%} of the time"
)
ax = use.plot.bar(stacked=True, figsize=(11, 3), width=0.85, color=["#0072B2", "#E69F00", "#DDDDDD"])
ax.set(ylabel="share of the time", title="where the time of each machine goes")
ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
plt.show()

# %% [markdown]
# ## 3 Flow is not throughput: compare placements
#
# The same traffic runs on the placements of five methods. Compare the flow with the tokens served.

# %%
methods = ["pattern", "swarm", "petals", "separate", "proportional"]
online = hk.Workload.azure_conversation(rate_per_s=0.3, duration_s=SECONDS + 60)
table = compare(
    methods, {"online": online}, cluster=cluster, model=model, warmup_s=60, duration_s=SECONDS, time_limit_s=20
)
table.drop(columns=["gap", "problem"]).round(2)

# %%
plot_comparison(table)

# %% [markdown]
# ## 4 Schedulers
#
# Four schedulers choose pipelines on the same plan: by the flow (`helix`), by the speed observed so far (`swarm`), at
# random, and by the shortest queue.

# %%
mixed = hk.plan(cluster, model, method="petals")
schedulers = compare(
    [mixed],
    {"online": online},
    policies=["helix", "swarm", "random", "shortest_queue"],
    warmup_s=60,
    duration_s=SECONDS,
)
schedulers[["policy", "decode_tokens_per_s", "prompt_s", "prompt_p95_s", "decode_s", "decode_p95_s", "finished"]].round(
    2
)

# %% [markdown]
# ## 5 Fidelity
#
# `execution="layerwise"` follows exactly the rules of the simulator published with the paper. `range` works like our
# runtime, in which a worker runs all its layers in one step and mixes prefill with decode. The quickstart compares
# `range` with a real run.

# %%
rows = {}
for execution in ("range", "layerwise"):
    run = hk.simulate(plan, online, execution=execution, warmup_s=60, duration_s=SECONDS)
    summary = run.summary()
    rows[execution] = {
        "decode tokens/s": summary["decode_tokens_per_s"],
        "prompt avg, s": summary["prompt_latency_s"]["avg"],
        "decode avg, s": summary["decode_latency_s"]["avg"],
    }
pd.DataFrame(rows).T.round(2)

# %% [markdown]
# Little's law gives a check without a second simulator: requests in flight = arrival rate x time in the system.

# %%
run = hk.simulate(
    plan,
    hk.Workload.constant(rate_per_s=0.3, duration_s=SECONDS + 900, input_tokens=500, output_tokens=100),
    duration_s=SECONDS + 900,
)
done = [r for r in run.records if r.outcome == "finished" and r.request.arrival_s > 300]
stay = sum(r.finished_s - r.request.arrival_s for r in done) / len(done)
at = [t + 0.5 for t in range(400, 300 + SECONDS)]
inside = sum(sum(r.request.arrival_s <= t < (r.finished_s or 1e9) for r in run.records) for t in at) / len(at)
print(f"in flight on average {inside:.1f}; rate x stay = 0.3/s x {stay:.1f} s = {0.3 * stay:.1f}")

# %% [markdown]
# ## 6 Saturation and goodput
#
# An SLO sets limits for a request: here 3 s to the first token (TTFT, the paper's prompt latency) and 1.2 s for each
# further token (TPOT). Goodput is the rate of the requests that keep both. The tables have the measures of vLLM's
# benchmark, which are also those of a served run.

# %%
slo = hk.SLO(ttft_s=3.0, tpot_s=1.2, at=0.9)
run = hk.simulate(
    plan, hk.Workload.azure_conversation(rate_per_s=0.6, duration_s=SECONDS + 300), warmup_s=300, duration_s=SECONDS
)
summary = run.summary(slo)
measures = {"ttft_s": "TTFT", "tpot_s": "TPOT", "itl_s": "ITL", "e2el_s": "E2EL"}
print(run.goodput(slo))
pd.DataFrame({name: summary[key] for key, name in measures.items()}).T.round(2)

# %% [markdown]
# A sweep simulates plans at many rates. Up to its knee (dotted) a plan serves requests as fast as they come. Above it
# requests pile up, and the time to the first token grows with the length of the run. The decode latency limits the
# goodput long before the knee.

# %%
plans = {"ours": plan, **{name: hk.plan(cluster, model, method=name) for name in ("swarm", "separate")}}
curves = hk.sweep(plans, rates="auto:6" if FAST else "auto", slo=slo, seeds=1 if FAST else 2)
curves.plot()

# %%
pd.DataFrame(
    {
        name: {
            "knee, requests/s": curve.knee_per_s,
            "most output, tokens/s": max(curve.column("output_tokens_per_s")),
            "SLO holds until, requests/s": curve.slo_rate_per_s,
            "most goodput, requests/s": curve.max_goodput[1],
        }
        for name, curve in curves.curves.items()
    }
).T.round(2)

# %% [markdown]
# ## Exercises
#
# 1. Plan with `max_stages=12` and repeat section 2. The plan has less flow. Does it serve more?
# 2. Give every machine twice the KV cache (`kv_capacity=`) in the offline case. What limits it now?
# 3. Write a `Policy` of your own (three lines: see `helix_kit/scheduling/policy.py`) and add it to section 4.
# 4. Keep every batch (`record_batches=True`), write `run.to_perfetto("trace.json")`, and open it at ui.perfetto.dev.
# 5. Repeat the sweep of section 6 in a closed loop: `hk.sweep(plans, concurrency=[1, 16, 64, 256], slo=slo)`.
