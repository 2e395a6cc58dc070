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
# # 05 Serve: from a profile to the paper's picture, and a worker that is killed
#
# **Purpose.** This notebook goes the whole way with real workers: it measures this machine, chooses workers (the GPUs
# that it finds, or an emulated cluster), plans by two methods, serves the same requests with both, and draws the
# paper's picture with the simulation beside what was served. Then it kills a worker while it serves.
# [The page on several GPUs](../docs/multi-gpu.md) goes the same way on the command line.
#
# **Takes** about a minute and a half on 2 cores (less with `FAST=1`), and half a minute more the first time for the
# weights.

# %%
import os
import signal
import time

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display

import helix_kit as hk
from helix_kit.catalogue import gpus as catalogue
from helix_kit.runtime import Timeouts, demo_weights
from helix_kit.runtime.devices import find_gpus, is_kind
from helix_kit.runtime.profile import measure

FAST = os.environ.get("FAST") == "1"
weights = demo_weights()

# %% [markdown]
# ## 1 Measure this machine
#
# The profile gives milliseconds per layer, for prefills of growing length and for decode batches of growing size.
# `helix-kit profile` does the same on the command line.

# %%
gpus = find_gpus()
device = gpus[0].device if gpus else "cpu"
measured_profile = measure(weights, device=device, layers=2, repeats=3)
points = pd.DataFrame(
    [{"phase": p.phase, "tokens": p.tokens, "ms per layer": p.ms_per_layer} for p in measured_profile.points]
)
fig, axes = plt.subplots(1, 2, figsize=(10, 2.6), layout="constrained")
for ax, (phase, group) in zip(axes, points.groupby("phase")):
    ax.plot(group["tokens"], group["ms per layer"], "o-")
    ax.set(title=f"{phase}, {device}", xlabel="tokens" if phase == "prefill" else "requests", ylabel="ms per layer")
    ax.grid(alpha=0.3)
plt.show()

# %% [markdown]
# ## 2 Choose workers
#
# With GPUs, each GPU that the catalogue knows becomes a node, and the workers are real. Without any, the cluster is
# `laptop`: four machines of three kinds that do not exist. Their workers are processes with a stand-in for the model,
# paced to the kinds' profiles: scheduling, batching, KV pages and messages are real, speeds are declared. Write the
# name of your own cluster file in place of `laptop` to emulate it.

# %%
known = catalogue()
kinds = [next((kind for kind in known if is_kind(gpu, kind, known[kind].memory_gb)), None) for gpu in gpus]
if gpus and all(kinds):
    network = {"within_region": {"bandwidth_gbps": 40, "latency_ms": 0.05}}
    nodes = [{"gpu": kind} for kind in kinds]
    cluster = hk.Cluster.model_validate({"name": "this machine", "nodes": nodes, "network": network})
    workers, options = "real", {"weights": weights, "dtype": "bfloat16"}
else:
    cluster, workers, options = hk.Cluster.preset("laptop"), "emulated", {"time_scale": 1.0}
model = hk.Model.preset("SmolLM2-135M")
print(f"{workers} workers on {cluster.name}: {', '.join(node.name for node in cluster.nodes)}")

# %% [markdown]
# ## 3 Plan by two methods, and serve both
#
# `hk.evaluate` plans by each method, simulates the same requests, starts the workers, serves, and stops them. While
# they serve, `watch` gets their status once a second: the table below shows the last one, the panels all of them.

# %%
seen = []
live = display(pd.DataFrame(), display_id=True)


def watch(name, status):
    """Show requests, tokens and KV use of each worker, and keep them for the panels."""
    rows = {
        worker: {
            "layers": f"{s.layers[0]} to {s.layers[1] - 1}",
            "requests": s.requests,
            "decode tokens": s.decode_tokens,
            "KV pages in use": f"{s.pages_used / max(1, s.pages):.1%}",
            "steps": s.steps,
            "late": s.overruns,
        }
        for worker, s in status.workers.items()
    }
    table = pd.DataFrame(rows).T
    live.update(table.rename_axis(f"{name.split(',')[0]}: {status.running} running"))
    pages = sum(s.pages_used for s in status.workers.values())
    seen.append((name, time.monotonic(), status.running, status.tokens_out, pages))


requests = hk.Workload.poisson(rate_per_s=0.7, duration_s=60, input_tokens=64, output_tokens=24, seed=1)
found = hk.evaluate(
    cluster,
    model,
    methods="helix,separate",
    modes="online",
    workers=workers,
    workload=requests,
    warmup_s=4 if FAST else 6,
    duration_s=6 if FAST else 14,
    time_limit_s=10,
    watch=watch,
    **options,
)
print(*found.notes, *found.problems, sep="\n")

# %%
fig, axes = plt.subplots(1, 3, figsize=(10, 2.6), layout="constrained")
columns = ["run", "at_s", "running", "tokens", "pages"]
for run, group in pd.DataFrame(seen, columns=columns).groupby("run", sort=False):
    seconds = group["at_s"] - group["at_s"].iloc[0]
    axes[0].plot(seconds, group["running"], label=run.split(",")[0])
    axes[1].plot(seconds.iloc[1:], group["tokens"].diff().iloc[1:] / seconds.diff().iloc[1:])
    axes[2].plot(seconds, group["pages"])
for ax, label in zip(axes, ("requests running", "tokens/s", "KV pages in use, all workers")):
    ax.set(xlabel="s", ylabel=label, ylim=(0, None))
    ax.grid(alpha=0.3)
axes[0].legend(frameon=False)
plt.show()

# %% [markdown]
# ## 4 The paper's picture of the run
#
# Bars of decode throughput, boxes of prompt and decode latency, simulated beside served. `differences` says how far the
# workers are from the simulation, with intervals of 95 % confidence; in so short a run they are wide.

# %%
display(found.plot())
found.differences().drop(columns="mode").round(3)

# %% [markdown]
# ## 5 Kill a worker while it serves
#
# Now with the real model on the CPU workers of `laptop`. One of two replicas dies while four answers are generated. Its
# requests continue on another pipeline, which computes the lost tokens again. Decoding is greedy, so the answers are
# the same as without the failure.

# %%
plan = hk.plan(hk.Cluster.preset("laptop"), model, time_limit_s=10)
# A busy machine may leave a worker without a turn for seconds: it counts as lost after half a minute.
engine = hk.serve(plan, weights, restart_workers=False, timeouts=Timeouts(silence_s=30))
plan.show()

# %%
prompts = ["Count to ten in words.", "Name five animals.", "What is ice?", "Write a line about rain."]
ids = [engine.chat_ids([{"role": "user", "content": prompt}]) for prompt in prompts]
undisturbed = engine.generate(ids, max_new_tokens=12)
spans = list(plan.placement.values())
victim = next((n for n, span in plan.placement.items() if spans.count(span) > 1), None)
handles = [engine.submit(one, max_new_tokens=12) for one in ids]
if victim is not None:
    time.sleep(1.0)
    os.kill(engine.status().workers[victim].pid, signal.SIGKILL)
    print(f"killed {victim}, which held layers {plan.placement[victim][0]} to {plan.placement[victim][1] - 1}")
answers = [handle.result() for handle in handles]
pd.DataFrame(
    {
        "answer": [a.text.strip()[:60] for a in answers],
        "restarts": [a.record.restarts for a in answers],
        "same as undisturbed": [a.token_ids == b.token_ids for a, b in zip(answers, undisturbed)],
    },
    index=prompts,
)

# %%
print(pd.DataFrame(engine.status().to_dict()["workers"]).T[["state", "reason"]])
engine.close()

# %% [markdown]
# ## Exercises
#
# 1. Add `swarm` and `helix+random` to the methods. Which of them has the longest prompt latency?
# 2. Emulate your own cluster file, or `single24` with `llama2-70b`.
# 3. Kill a worker in section 3 (`os.kill` in `watch`). What do the notes say afterwards?
# 4. Kill a worker that is the only holder of its layers. What do its requests report, and what does `engine.restart`
#    do?
# 5. Serve the same plan over HTTP (`helix-kit serve --help`) and talk to it with an OpenAI client.
