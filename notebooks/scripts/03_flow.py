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
# # 03 Flow: from a placement to pipelines, step by step
#
# **Purpose.** What the paper's Figures 1, 2 and 4 tell, on examples small enough to follow by hand: why splitting by
# memory wastes fast GPUs, how a placement becomes a flow network, and how requests are dealt to pipelines so that the
# flow is met.
#
# **Takes** a few seconds on 2 cores.

# %%
from collections import Counter

import pandas as pd

import helix_kit as hk
from helix_kit.analysis.compare import proportional
from helix_kit.flow import SINK, SOURCE, build_flow_graph, decompose, max_flow
from helix_kit.scheduling import make_policy
from helix_kit.workload.request import Request

# %% [markdown]
# ## 1 Mixed machines, a thin link (after Figure 1)
#
# One A100 in one region; two L4 and three T4 in another. By rule of thumb, everybody takes layers in proportion to
# memory, in one chain. The slowest machine then sets the pace for all, and fast ones wait.

# %%
cluster = hk.Cluster.model_validate(
    {
        "name": "figure-1",
        "coordinator": {"region": "A"},
        "nodes": [
            {"gpu": "A100-40G", "region": "A"},
            {"gpu": "L4", "count": 2, "region": "B"},
            {"gpu": "T4", "count": 3, "region": "B"},
        ],
        "network": {
            "within_region": {"bandwidth_gbps": 10, "latency_ms": 1},
            "between_regions": {"bandwidth_gbps": 0.1, "latency_ms": 50},
        },
    }
)
model = hk.Model.preset("llama-30b").model_copy(update={"num_layers": 24, "name": "llama-30b"})
chain = proportional(cluster, model)
chain.show()

# %% [markdown]
# Letting the flow decide instead: replicas where machines are slow, and the long range where one is fast.

# %%
best = hk.plan(cluster, model, time_limit=10)
print(f"{chain.flow_tokens_per_s:.0f} -> {best.flow_tokens_per_s:.0f} tokens/s")
best.show()

# %% [markdown]
# ## 2 A placement as a flow network (after Figure 2)
#
# Each machine becomes two vertices joined by an edge that carries what it can serve; each usable link becomes an edge
# that carries bandwidth / bytes per token. The coordinator is source and sink. Capacities are whole milli-tokens/s,
# so that results are exact.

# %%
graph = build_flow_graph(cluster, model, best.placement, best.node_throughput_tokens_per_s)
pd.DataFrame(
    [
        {"from": "-".join(map(str, a)), "to": "-".join(map(str, b)), "tokens/s": data["capacity"] / 1000}
        for a, b, data in graph.edges(data=True)
    ]
)

# %%
flow = max_flow(graph)
print(f"maximum flow {flow.tokens_per_s} tokens/s from {SOURCE} to {SINK}")
print("minimum cut:", ", ".join(a if a == b else f"{a} -> {b}" for a, b in flow.min_cut))
print("its capacity:", sum(flow.capacities[edge] for edge in flow.min_cut), "tokens/s: the same, as it must be")

# %% [markdown]
# ## 3 Partial inference
#
# A request may enter a machine's range after its first layer. Here the first machine stops at layer 14 and the next
# one's range begins at 10: layers 10 to 13 are run once, by whoever the pipeline says. The mark on the bar shows
# where it is entered.

# %%
problem = hk.Problem.of(cluster, model)
overlap = {
    "A100-40G-0": (0, 14),
    "L4-0": (10, 18),
    "L4-1": (10, 18),
    "T4-0": (18, 24),
    "T4-1": (18, 24),
    "T4-2": (14, 18),
}
with_partial = hk.Plan.from_placement(problem, overlap, method="by hand")
without = problem.max_flow(overlap, partial_inference=False)
print(f"with partial inference {with_partial.flow_tokens_per_s:.0f} tokens/s, without {without.tokens_per_s:.0f}")
with_partial.show()

# %% [markdown]
# ## 4 The flow as pipelines
#
# The flow splits into paths; each is a pipeline with its share. They add up to the whole.

# %%
for stages, rate in decompose(with_partial.max_flow, overlap):
    print(f"{rate:7.1f} tokens/s  " + " → ".join(f"{s.node}[{s.start}:{s.end}]" for s in stages))

# %% [markdown]
# ## 5 Dealing requests to pipelines (after Figure 4)
#
# At every hop the scheduler chooses the next machine by interleaved weighted round robin, weights being the flow on
# the links. No request is bound to a fixed path, and after a while each link has carried its share.


# %%
class Calm:
    """A cluster in which every machine is alive and has room, and nobody waits."""

    def is_alive(self, node):
        return True

    def has_room(self, node, tokens, layers):
        return True

    def queue_length(self, node):
        return 0

    def now_s(self):
        return 0.0


policy = make_policy("helix", with_partial)
counts, view = Counter(), Calm()
REQUESTS = 400
for index in range(REQUESTS):
    request = Request(index, arrival_s=0.0, input_tokens=1, output_tokens=1)
    pipeline = policy.route(request, view)
    policy.on_finished(request)
    hops = ["coordinator", *(stage.node for stage in pipeline), "coordinator"]
    counts.update(zip(hops, hops[1:]))
pd.DataFrame(
    [
        {
            "link": f"{a} → {b}",
            "share of the flow": f"{rate / with_partial.flow_tokens_per_s:.1%}",
            "share of the requests": f"{counts[a, b] / REQUESTS:.1%}",
        }
        for (a, b), rate in with_partial.flow_edges.items()
    ]
)

# %% [markdown]
# ## Exercises
#
# 1. Make the link between the regions ten times thinner. When does the min cut move from machines to links?
# 2. Remove `T4-2` from `overlap`. Which pipelines are left, and what is the new flow? Compute it by hand first.
# 3. Deal requests with `make_policy("random", ...)` instead. How far from the shares of the flow do you end up?
# 4. Draw the third picture with `partial_inference=False` and explain what vanished.
