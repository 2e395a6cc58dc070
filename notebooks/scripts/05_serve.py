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
# # 05 Serve: profile, launch, replay, kill a worker, compare
#
# **Purpose.** This notebook serves a plan with real workers. It measures this machine, starts workers that hold only
# their own layers, replays a trace, kills a worker while it serves, and compares measurements with the simulation.
#
# **Takes** about a minute and a half on 2 cores (less with `FAST=1`), and half a minute more the first time for the
# weights.

# %%
import os
import signal
import time

import matplotlib.pyplot as plt
import pandas as pd

import helix_kit as hk
from helix_kit.runtime import Timeouts, demo_weights
from helix_kit.runtime.profile import measure

FAST = os.environ.get("FAST") == "1"
weights = demo_weights()

# %% [markdown]
# ## 1 Measure this machine
#
# The profile gives milliseconds per layer, for prefills of growing length and for decode batches of growing size.
# `helix-kit profile` does the same on the command line.

# %%
measured_profile = measure(weights, layers=2 if FAST else 4, repeats=3 if FAST else 5)
points = pd.DataFrame(
    [{"phase": p.phase, "tokens": p.tokens, "ms per layer": p.ms_per_layer} for p in measured_profile.points]
)
fig, axes = plt.subplots(1, 2, figsize=(10, 3))
for ax, (phase, group) in zip(axes, points.groupby("phase")):
    ax.plot(group["tokens"], group["ms per layer"], "o-")
    ax.set(title=phase, xlabel="tokens" if phase == "prefill" else "requests", ylabel="ms per layer")
    ax.grid(alpha=0.3)
plt.show()

# %% [markdown]
# ## 2 Plan and launch
#
# `laptop` has four workers of emulated kinds: each worker runs on this machine and is slowed down to the speed of its
# profile, so that one computer behaves like a mixed cluster. With real GPUs in `cluster.yaml` the same call puts
# workers on them. `devices=` chooses the GPUs, and `launcher="ray"` spreads the workers over several machines.

# %%
plan = hk.plan(hk.Cluster.preset("laptop"), hk.Model.preset("SmolLM2-135M"), time_limit_s=20)
plan.show()

# %%
started = time.perf_counter()
# A busy machine may leave a worker without a turn for seconds: it counts as lost after half a minute.
engine = hk.serve(plan, weights, restart_workers=False, timeouts=Timeouts(silence_s=30))
print(f"{len(plan.placement)} workers up after {time.perf_counter() - started:.1f} s")
pd.DataFrame(engine.status().to_dict()["workers"]).T[["state", "layers", "pages"]]

# %% [markdown]
# ## 3 Stream an answer

# %%
handle = engine.submit(engine.chat_ids([{"role": "user", "content": "Tell me about the moon."}]), max_new_tokens=24)
for piece in handle:
    print(piece.text, end="", flush=True)

# %% [markdown]
# ## 4 Replay a trace, and simulate the same
#
# The real workers and the simulator get the same requests at the same times. A step is late when it takes longer than
# its profile says, and a late step cannot be corrected. With many late steps this machine was too busy with other
# work for a fair comparison.

# %%
count = 8 if FAST else 20
trace = hk.Workload.poisson(rate_per_s=0.8, duration_s=60, input_tokens=64, output_tokens=24, seed=1)[:count]
real = engine.replay(trace)
simulated = hk.simulate(plan, trace)
print(f"{real.facts['overrun_share']:.1%} of {real.facts['steps']} steps were late")
rows = {}
for name, run in [("simulated", simulated), ("measured", real)]:
    done = [r for r in run.records if r.outcome == "finished"]
    rows[name] = {
        "finished": len(done),
        "first token, avg s": sum(r.first_token_s - r.request.arrival_s for r in done) / len(done),
        "each further token, avg s": sum(
            (r.finished_s - r.first_token_s) / max(1, r.request.output_tokens - 1) for r in done
        )
        / len(done),
        "whole request, avg s": sum(r.finished_s - r.request.arrival_s for r in done) / len(done),
    }
pd.DataFrame(rows).round(3)

# %%
real.plot()

# %% [markdown]
# ## 5 Kill a worker while it serves
#
# One of two replicas dies while four answers are generated. Its requests continue on another pipeline, which computes
# the lost tokens again. Decoding is greedy, so the answers are the same as without the failure.

# %%
prompts = ["Count to ten in words.", "Name five animals.", "What is ice?", "Write a line about rain."]
ids = [engine.chat_ids([{"role": "user", "content": prompt}]) for prompt in prompts]
undisturbed = engine.generate(ids, max_new_tokens=20)
spans = list(plan.placement.values())
victim = next((n for n, span in plan.placement.items() if spans.count(span) > 1), None)
handles = [engine.submit(one, max_new_tokens=20) for one in ids]
if victim is not None:
    time.sleep(1.5)
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
# 1. Serve with `policy="random"` and replay the trace again. What happens to the latencies?
# 2. Kill a worker that is the only holder of its layers. What do its requests report, and what does `engine.restart`
#    do?
# 3. Plan with the measured profile in place of an emulated one (`profiles=`, kind by kind), and launch with
#    `pace=False`.
# 4. Serve the same plan over HTTP (`helix-kit serve --help`) and talk to it with an OpenAI client.
