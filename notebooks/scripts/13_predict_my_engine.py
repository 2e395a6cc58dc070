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
# # 13 Will this predict my vLLM?
#
# **Purpose.** This notebook predicts what a vLLM server will measure before it runs. It shows where the time of a step
# goes, what the engine's record contains, how a plan is made for the engine, how uncertain constants change the
# prediction, and how to compare the prediction with a live endpoint.
#
# **Takes** about 30 seconds on 2 cores. It needs no GPU.

# %%
import os

import matplotlib.pyplot as plt
import pandas as pd

import helix_kit as hk
from helix_kit.catalogue import gpus
from helix_kit.profiles.engines import load_engine
from helix_kit.profiles.step import Machine, ModelWork, kv_blocks, step_costs

FAST = os.environ.get("FAST") == "1"
SECONDS = 60 if FAST else 120

# %% [markdown]
# ## 1 The engine's record
#
# An engine is data: rules by which it forms steps, and constants of a step's time. The constants were fitted once on
# real runs of vLLM 0.15.1 on H100. They hold for every model. Before you rely on a prediction, read in
# `docs/engine-fidelity.md` how far it is off for models that the fit has not seen, and what predictions for A100 and
# L40S hang on, which no run of the fit used.

# %%
engine = load_engine("vllm-0.15")
on_h100 = engine.on("H100-80G")
print(on_h100.rules)
pd.DataFrame(
    [(name, c.value, c.unit, c.meaning.strip()) for name, c in engine.constants.by_name().items()],
    columns=["constant", "value", "unit", "meaning"],
)

# %% [markdown]
# ## 2 Where the time of a step goes
#
# A step reads the weights once, whatever is in it, and the KV cache of the requests in it. Prompts add arithmetic. The
# rest are launches, the sampler, and what the engine does around the step. Change `model` or `machine` and run the
# cells again.
#
# **Look at your model's `generation_config.json` first.** vLLM takes its top-p, top-k and penalties for requests that
# do not set their own, and each of them costs time in every step. Llama 3.1 sets top-p, so this notebook has
# `SORTS_SAMPLES = True`. Set it to False if your file sets neither top-p nor top-k, or if you start the server with
# `--generation-config vllm`.

# %%
SORTS_SAMPLES = True
model = hk.Model.preset("llama3.1-70b")
machine = Machine(gpus()["H100-80G"], count=4)
work = ModelWork.of(model, sorts_samples=SORTS_SAMPLES)
costs = step_costs(on_h100, work, machine)
blocks = kv_blocks(on_h100, work, machine)
print(f"{blocks:,} blocks of KV cache: {blocks * on_h100.rules.block_tokens:,} tokens of context")

context = 1000
parts = pd.DataFrame(
    {
        batch: {
            "weights and all-reduces": costs.linear_s[batch],
            "KV cache": costs.context_s * batch * context,
            "launches and bookkeeping": costs.fixed_s,
            "sampling": costs.sampled_s * batch,
        }
        for batch in (1, 8, 32, 128, 256)
    }
).T
ax = (1e3 * parts).plot.bar(stacked=True, figsize=(9, 3), color=["#0072B2", "#E69F00", "#999999", "#009E73"])
ax.set(xlabel="requests that decode, 1,000 tokens of context each", ylabel="ms", title="a decode step")
ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
plt.show()

# %% [markdown]
# The roofline needs three figures of a datasheet: a GPU of your own is described in a cluster file (`gpus:`). On the
# machine itself `helix-kit profile FOLDER --device cuda:0` measures steps with our own runtime, mixed ones and long
# contexts too, and prints how well a roofline would have predicted each.

# %% [markdown]
# ## 3 A plan for the engine
#
# vLLM serves replicas: chains of nodes that share no other chain. `engine=` makes machines as fast as the engine's
# steps, and the plan a set of such chains. With `objective="served"` the simulated engine chooses among several sets.

# %%
cluster = hk.Cluster.model_validate(
    {
        "name": "mine",
        "nodes": [{"gpu": "H100-80G", "gpus_per_node": 4}, {"gpu": "A100-80G", "gpus_per_node": 2, "count": 3}],
        "network": {"within_region": {"bandwidth_gbps": 25, "latency_ms": 0.1}},
    }
)
plan = hk.plan(cluster, model, engine="vllm-0.15", objective="served", window_s=SECONDS / 2)
for stages, flow in plan.pipelines:
    print(f"{flow:,.0f} tokens/s: " + " -> ".join(f"{s.node} [{s.start}, {s.end})" for s in stages))

# %% [markdown]
# ## 4 The prediction
#
# Chat prompts share system prompts, so that the prefix cache holds a part of each. The simulator follows the engine's
# rules: continuous batching, chunked prefill, a prefix cache, steps that are scheduled while one runs, preemption.

# %%
rows = {}
for rate in (1, 2, 4, 6):
    workload = hk.Workload.shared_prompts(rate, SECONDS)
    run = hk.simulate(plan, workload, sorts_samples=SORTS_SAMPLES)
    summary = run.summary()
    rows[f"{rate} requests/s"] = {
        "tokens/s": summary["output_tokens_per_s"],
        "TTFT p50, s": summary["ttft_s"]["p50"],
        "TTFT p99, s": summary["ttft_s"]["p99"],
        "TPOT p50, s": summary["tpot_s"]["p50"],
        "E2E p99, s": summary["e2el_s"]["p99"],
        "prefix hits": run.facts["prefix_hit_rate"],
    }
pd.DataFrame(rows).T.round(3)

# %% [markdown]
# ## 5 How sure is it?
#
# Each constant has an uncertainty. Here the ones that matter most are changed by a tenth. What moves little need not be
# known well; what moves much is worth a measurement on your GPU.

# %%
workload = hk.Workload.shared_prompts(4, SECONDS)


def tpot_ms(record):
    run = hk.simulate(plan, workload, engine=record, sorts_samples=SORTS_SAMPLES)
    return 1e3 * run.summary()["tpot_s"]["mean"]


base = tpot_ms(engine)
names = [
    "bandwidth_share",
    "context_bandwidth_share",
    "arithmetic_share",
    "step_ms",
    "layer_ms",
    "all_reduce_ms",
    "sorted_sampling_ns_per_logit",
    "sorted_row_ns_per_logit",
]
changed = {
    name: [tpot_ms(engine.model_copy(update={"constants": engine.constants.scaled(name, f)})) for f in (0.9, 1.1)]
    for name in names
}
table = pd.DataFrame(changed, index=["a tenth less", "a tenth more"]).T
(100 * (table / base - 1)).round(1).add_suffix(": change of TPOT, %")

# %% [markdown]
# The rules are yours to set, as on vLLM's command line. With long prompts a smaller token budget makes steps short, so
# that tokens come evenly, and first tokens late:

# %%
long_prompts = hk.Workload.shared_prompts(1, SECONDS, question_tokens=6000)
pd.DataFrame(
    {
        f"max_num_batched_tokens = {budget}": {
            f"{measure} {q}, ms": 1e3 * summary[key][q]
            for summary in [
                hk.simulate(
                    plan,
                    long_prompts,
                    engine=engine.with_rules(max_num_batched_tokens=budget),
                    sorts_samples=SORTS_SAMPLES,
                ).summary()
            ]
            for measure, key in (("TTFT", "ttft_s"), ("ITL", "itl_s"))
            for q in ("p50", "p99")
        }
        for budget in (512, 2048, 8192)
    }
).T.round(1)

# %% [markdown]
# ## 6 Compare with a live endpoint
#
# Start the server with the rules of the record, send it the same requests, and compare the two runs. Both files have
# the same measures, by the same definitions.
#
# ```python
# plan.save("plan.json")
# workload.to_csv("requests.csv")    # the requests of section 5: arrivals, lengths, and which prompts begin alike
# ```
#
# ```sh
# helix-kit export plan.json --to vllm -o start        # scripts that start the replicas, and their router
# helix-kit bench http://localhost:8000 --trace requests.csv --json > real.json
# helix-kit simulate plan.json --trace requests.csv --top-p --json > predicted.json
# ```
#
# A plan of several replicas is measured at the router's address. Prompts that begin alike share their first words, and
# answers have exactly the lengths of the file. Prompts are as long as words allow; the records have the server's own
# counts. Restart the server between two measurements, or give `bench` another `--seed`: the simulation begins with an
# empty prefix cache.
#
# Look at the differences in this order:
#
# 1. **TPOT at a low load** is the decode step. If it is off, `bandwidth_share` of your GPU is (the weights over the
#    time), or `layer_ms` where the model is small.
# 2. **TPOT at a high load** adds the KV cache and the sampler: `context_bandwidth_share`, and whether requests use
#    top-p or penalties (`--top-p`, `--penalties`).
# 3. **TTFT at a low load** is a prompt's arithmetic and `receive_ms`.
# 4. **TTFT at a high load** is waiting. It is right only when the steps are.
#
# Write your values into a copy of the record and name the file: `engine="mine.yaml"`.

# %%
mine = engine.model_copy(update={"constants": engine.constants.scaled("bandwidth_share", 0.95)})
pd.DataFrame({name: {"TPOT, ms": tpot_ms(record)} for name, record in (("vllm-0.15", engine), ("mine", mine))}).T.round(
    2
)

# %% [markdown]
# ## Exercises
#
# 1. Give the A100 nodes NVLink or PCIe (`gpu_link`) and look at the all-reduces of section 2.
# 2. Set `prefix_cache=False` in section 4. How much later does the first token come?
# 3. Serve a mixture of experts (`mixtral-8x7b`): how many experts does a batch of 8 read, and one of 128?
# 4. Predict the highest rate at which an SLO holds: `hk.sweep(plan, slo=hk.SLO(ttft_s=1.0, tpot_s=0.05))`.
