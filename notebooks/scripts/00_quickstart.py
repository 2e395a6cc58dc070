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
# # 00 Quickstart: plan, simulate, serve
#
# **Purpose.** Plan, simulate and serve once, on two clusters. The first has 24 mixed GPUs: the notebook plans and
# simulates them, so you need not own them. The second has four local workers that serve a small language model.
#
# **Takes** about one minute on 2 cores, plus half a minute the first time for the weights of SmolLM2-135M.
#
# The notebook computes every number below when it runs.

# %% [markdown]
# ## 1 Describe what you have and what you serve
#
# `single24` is a published evaluation cluster: 4 A100, 8 L4 and 12 T4 in one data centre. LLaMA-2 70B has 80 layers,
# and each of the 24 machines can hold only a few of them.

# %%
import os

import pandas as pd

import helix_kit as hk
from helix_kit.analysis import explain

cluster = hk.Cluster.preset("single24")
model = hk.Model.preset("llama2-70b")
problem = hk.Problem.of(cluster, model)
pd.DataFrame(
    {
        "machines": cluster.kind_counts,
        "layers each can hold": {n.kind: problem.max_layers(n.name) for n in cluster.nodes},
        "tokens/s with 1 layer": {n.kind: round(problem.throughput(n.name, 1)) for n in cluster.nodes},
    }
)

# %% [markdown]
# ## 2 Plan: which layers go where
#
# The planner returns a placement, the flow that it carries, and a **proven upper bound** on what any placement could
# carry. The gap between the two is the most that a better placement could gain.

# %%
plan = hk.plan(cluster, model, time_limit_s=30)
print(f"value {plan.flow_tokens_per_s:,.1f} tokens/s")
print(f"bound {plan.bound_tokens_per_s:,.1f} tokens/s")
print(f"gap   {plan.gap:.3%} after {plan.seconds:.2f} s")

# %% [markdown]
# The heuristics that other systems use, on the same cluster:

# %%
rivals = {"pattern (ours)": plan}
for method in ("swarm", "petals", "separate"):
    rivals[method] = hk.plan(cluster, model, method=method)
pd.DataFrame(
    {
        "tokens/s": {name: round(p.flow_tokens_per_s, 1) for name, p in rivals.items()},
        "deepest pipeline, stages": {name: max(len(stages) for stages, _ in p.pipelines) for name, p in rivals.items()},
    }
)

# %% [markdown]
# ## 3 See it
#
# The x axis shows the layers to scale. Each bar is a machine and is filled to the used share of its capacity. Ribbons
# show the flow between machines. The min cut, which limits the flow, is vermilion. Run the cell to hover, click,
# drag, search and zoom.

# %%
plan.show()

# %%
print(explain(plan))

# %% [markdown]
# ## 4 Simulate real traffic on it
#
# Requests have the lengths and bursts of a public trace of conversations: on average 763 input tokens and 232 output
# tokens. The scheduler assigns them to pipelines in proportion to the flow.

# %%
workload = hk.Workload.azure_conversation(rate_per_s=0.5, duration_s=660, seed=0)
run = hk.simulate(plan, workload, warmup_s=60, duration_s=600, seed=0)


def latencies(summary: dict) -> pd.DataFrame:
    rows = {
        "prompt (first token)": summary["prompt_latency_s"],
        "decode (each further token)": summary["decode_latency_s"],
    }
    return pd.DataFrame(rows).T[["avg", "p50", "p95"]].round(2).rename(columns=lambda c: f"{c}, s")


print(f"{run.summary()['decode_tokens_per_s']:.1f} tokens/s decoded, {run.summary()['finished']} requests finished")
latencies(run.summary())

# %% [markdown]
# **Why so much less than the plan's value?** The value is what the machines can carry, prompt and output tokens
# together. The simulation is an online load: 0.5 requests a second bring about 0.5 · (763 + 232) ≈ 500 tokens/s, a
# quarter of the value, and `decode_tokens_per_s` counts output tokens alone. A backlog
# (`hk.simulate(plan, hk.Workload.offline(2000), mode="offline")`) shows what the plan decodes with full KV caches.
#
# A plan with more flow does not always serve more tokens, because in a deep pipeline every token pays for every hop.
# Exercise 2 shows this.
#
# ## 5 The same verbs, for real: four workers on this machine
#
# `laptop` describes four local workers. They are slowed down to three speeds, so that this machine behaves like a
# small mixed cluster. The model is SmolLM2-135M with its real weights, which are fetched and converted on first use.

# %%
small_cluster = hk.Cluster.preset("laptop")
small_model = hk.Model.preset("SmolLM2-135M")
small_plan = hk.plan(small_cluster, small_model, time_limit_s=30)
print(f"value {small_plan.flow_tokens_per_s:.1f} tokens/s, bound {small_plan.bound_tokens_per_s:.1f}")
small_plan.show()

# %% [markdown]
# Each worker is a process that holds only its own layers. A coordinator sends each request along its pipeline.

# %%
from helix_kit.runtime import Timeouts

questions = [
    "What is the capital of France?",
    "Name three colours of the rainbow.",
    "Write one sentence about the sea.",
    "Why is the sky blue?",
    "Give me a short recipe for pancakes.",
    "What does a GPU do?",
    "Who wrote Romeo and Juliet?",
    "Say good morning in Italian.",
]

# A busy machine may leave a worker without a turn for seconds: it counts as lost after half a minute.
with hk.serve(small_plan, seed=0, timeouts=Timeouts(silence_s=30)) as engine:
    prompts = [engine.chat_ids([{"role": "user", "content": question}]) for question in questions]
    engine.generate(prompts[0], max_new_tokens=2)  # the first steps of fresh processes are slow; they are not measured
    answers = engine.generate(prompts, max_new_tokens=40)

for question, answer in zip(questions, answers, strict=True):
    route = " → ".join(f"{stage.node}[{stage.start}:{stage.end}]" for stage in answer.pipeline)
    print(f"> {question}\n{answer.text.strip()}\n    {len(answer.token_ids)} tokens over {route}\n")

# %% [markdown]
# ## 6 Measured beside simulated
#
# The simulator gets the same plan and the same eight requests, with their lengths and arrival times.

# %%
measured = hk.Run([answer.record for answer in answers])
begin = min(r.request.arrival_s for r in measured.records)
end = max(r.finished_s for r in measured.records)
measured = hk.Run(measured.records, window=(begin, end))
same_requests = hk.Workload.of(
    (r.request.arrival_s - begin, r.request.input_tokens, r.tokens_generated) for r in measured.records
)
simulated = hk.simulate(small_plan, same_requests)
simulated = hk.Run(
    simulated.records, tokens=simulated.tokens, window=(0.0, max(r.finished_s for r in simulated.records))
)

from helix_kit.experiments.machinery.demo import summary_table

load = os.getloadavg()[0] / (os.cpu_count() or 1)
if load > 4:  # the workers alone are about two processes a core
    print(f"This machine is busy ({load:.0f} processes a core): what was measured may lag far behind.")
summary_table(plan, run, small_plan, simulated, measured)

# %% [markdown]
# ## Exercises
#
# 1. Click a bar in the first picture, then choose a pipeline in its menu. Which machines does it pass, and which
#    layers does each run?
# 2. Plan with `method="petals"` and simulate the same workload. It carries less flow; does it serve less? Look at the
#    latencies, too.
# 3. Take two T4 away (`cluster.subset([...])`) and plan again. How much flow goes, and what does `explain` say now?
# 4. Ask the engine for `temperature=0.8` twice with the same `seed`, then with another.
# 5. Write a `cluster.yaml` with your own machines ([01_define_a_cluster](01_define_a_cluster.ipynb)) and start again
#    at section 1.
