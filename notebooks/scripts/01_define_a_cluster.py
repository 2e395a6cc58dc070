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
# # 01 Define a cluster: GPUs, profiles, your own machines, your own model
#
# **Purpose.** Describe your cluster and your model, so that you can plan, simulate and serve on them. The notebook
# uses the GPU catalogue, a YAML file, a GPU that the catalogue lacks, and a model of your own.
#
# **Takes** a few seconds on 2 cores.

# %% [markdown]
# ## 1 The catalogue
#
# The catalogue has one row for each GPU, with the source of its figures. To add a GPU, add a row; no code is needed.

# %%
import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import helix_kit as hk
from helix_kit.analysis import explain, shortfall
from helix_kit.profiles import gpus

pd.DataFrame(
    [
        {
            "GPU": gpu.name,
            "memory, GB": gpu.memory_gb,
            "memory bandwidth, GB/s": gpu.memory_bandwidth_gb_per_s,
            "fp16, Tflop/s": gpu.fp16_tflops,
            "$/h": gpu.price_usd_per_hour,
        }
        for gpu in gpus().values()
        if not gpu.name.startswith("CPU-")
    ]
).set_index("GPU")

# %% [markdown]
# ## 2 A cluster of your own
#
# A cluster file lists regions, machines with one or several GPUs, and links within and between regions. Machines
# without a name are numbered by kind, in the order of the file.

# %%
text = """
name: two-cities
coordinator: {region: paris}
nodes:
  - {gpu: A100-80G, count: 4, region: paris}
  - {gpu: L4, gpus_per_node: 2, count: 3, region: oslo}
  - {gpu: T4, count: 8, region: oslo}
network:
  within_region:   {bandwidth_gbps: 10, latency_ms: 1}
  between_regions: {bandwidth_gbps: 0.1, latency_ms: 50}
  links: [{between: [A100-80G-0, L4x2-0], bandwidth_gbps: 0.2, latency_ms: 40}]   # an exception
"""
folder = Path(tempfile.mkdtemp())
(folder / "two-cities.yaml").write_text(text)
cluster = hk.Cluster.load(folder / "two-cities.yaml")
print([node.name for node in cluster.nodes])
print(cluster.link("A100-80G-0", "L4x2-0"), cluster.link("A100-80G-1", "L4x2-0"), sep="\n")

# %% [markdown]
# An error names the file, the field, the value and what was expected:

# %%
for wrong, right in [("L4,", "L4-40G,"), ("bandwidth_gbps: 10,", "bandwidth_gbps: -10,"), ("region: oslo}", "}")]:
    (folder / "broken.yaml").write_text(text.replace(wrong, right, 1))
    try:
        hk.Cluster.load(folder / "broken.yaml")
    except hk.InputError as error:
        print("-", str(error).replace(str(folder), "..."), "\n")

# %% [markdown]
# ## 3 Profiles: how fast a machine runs k layers
#
# A profile comes from measured tables where there are any, and otherwise from a roofline estimate. Each profile names
# its source. T(k) is the throughput of a machine in tokens/s when it holds k layers. More layers mean more work per
# token, and less memory for the KV caches of concurrent requests.

# %%
model = hk.Model.preset("llama2-70b")
problem = hk.Problem.of(cluster, model)
fig, ax = plt.subplots(figsize=(8, 3.4))
for (kind, table), style in zip(problem.throughput_by_kind.items(), ("o-", "s--", "^:")):
    ax.plot(range(1, len(table) + 1), table, style, label=f"{kind}: {problem.profiles[kind].source.split(' (')[0]}")
ax.set(xlabel="layers held, k", ylabel="T(k), tokens/s", yscale="log", title=f"{model.name}")
ax.legend(fontsize=8, frameon=False)
ax.grid(alpha=0.3)
plt.show()

# %% [markdown]
# You can measure your own machine with `helix-kit profile`, as [05_serve](05_serve.ipynb) does, and pass the result
# to `hk.plan(..., profiles=...)`.

# %% [markdown]
# ## 4 A model of your own
#
# `Model.from_hf` reads the sizes in `config.json`. It downloads nothing and runs no code of the model.

# %%
config = {
    "model_type": "qwen3",
    "hidden_size": 4096,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 12288,
    "vocab_size": 151936,
    "torch_dtype": "bfloat16",
}
(folder / "my-8b").mkdir()
(folder / "my-8b" / "config.json").write_text(json.dumps(config))
mine = hk.Model.from_hf(folder / "my-8b")
print(f"{mine.name}: {mine.num_layers} layers of {mine.layer_gb:.3f} GB")
print(f"{mine.activation_bytes_per_token} bytes a token on links between machines")

# %% [markdown]
# ## 5 A GPU of your own
#
# Describe the GPU in the cluster itself, under `gpus`. Memory, memory bandwidth and dense fp16 speed are enough for
# an estimate.

# %%
home = hk.Cluster.model_validate(
    {
        "name": "home",
        "gpus": {"GTX-OLD": {"memory_gb": 11, "memory_bandwidth_gb_per_s": 484, "fp16_tflops": 11}},
        "nodes": [{"gpu": "GTX-OLD", "count": 2}, {"gpu": "RTX3090"}],
        "network": {"within_region": {"bandwidth_gbps": 1, "latency_ms": 0.5}},
    }
)
plan = hk.plan(home, mine, time_limit_s=10)
plan.show()

# %%
print(explain(plan))

# %% [markdown]
# ## 6 Does it fit?
#
# If the model does not fit, the message says what is missing and names the smallest change that would help.

# %%
print(shortfall(home, hk.Model.preset("llama2-70b")).words)

# %% [markdown]
# ## Exercises
#
# 1. Put the two old GPUs into another region behind 0.05 gbps. What does the plan do, and what does `explain` say?
# 2. Save `home` with `home.save("home.yaml")`, run `helix-kit plan home.yaml --model my-8b-folder`, and compare.
# 3. Call `Model.from_hf` on a mixture-of-experts config. What does the error say?
# 4. Which GPU of the catalogue holds the most layers of LLaMA-2 70B for a dollar?
