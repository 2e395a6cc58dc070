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
# **Purpose.** This notebook explains the paper's Figures 1, 2 and 4: why the network decides how to split a model,
# how a placement becomes a flow network, and how the scheduler assigns requests to pipelines so that they follow the
# flow. The examples are those of the figures [worked-example, flow-network and topology](../docs/reproduction.md),
# from the same code.
#
# **Takes** about ten seconds on 2 cores.

# %%
from collections import Counter

import pandas as pd

import helix_kit as hk
from helix_kit.experiments.figures.placements import figure_4_plan, two_requests
from helix_kit.experiments.figures.worked import small_model, splits, three_machines, two_regions
from helix_kit.flow import SINK, SOURCE, build_flow_graph, decompose, max_flow
from helix_kit.scheduling import make_policy
from helix_kit.workload.request import Request

# %% [markdown]
# ## 1 Figure 1: three ways to split a model
#
# One A100 stands in the region of the coordinator. One L4 and three T4 stand in another region, behind a slow link.

# %%
cluster, model = two_regions(), small_model()
problem = hk.Problem.of(cluster, model)
plans = {name: hk.Plan.from_placement(problem, placement, method=name) for name, placement in splits(problem).items()}
pd.DataFrame(
    {
        name: {
            "tokens/s": round(plan.flow_tokens_per_s),
            "limited by": ", ".join(a if a == b else f"link {a} → {b}" for a, b in plan.max_flow.min_cut),
        }
        for name, plan in plans.items()
    }
).T

# %% [markdown]
# **Step 1, uniform.** Every machine holds equally many layers. A slow machine limits the flow, and the fast one
# waits.

# %%
plans["uniform"].show()

# %% [markdown]
# **Step 2, balanced.** Every machine holds layers in proportion to its speed. Now every machine could carry more, but
# all requests pass one slow link to a single machine.

# %%
plans["balanced"].show()

# %% [markdown]
# **Step 3, network-aware.** The maximum flow decides. Two parallel machines receive the requests over two slow links,
# and a machine limits the flow again.

# %%
plans["network-aware"].show()

# %% [markdown]
# ## 2 Figure 2: a placement as a flow network
#
# The cluster has three machines. Each machine becomes two vertices joined by an edge, whose capacity is the
# throughput of the machine. Each usable link becomes an edge with the capacity bandwidth / bytes per token. The
# coordinator is source and sink. Capacities are whole milli-tokens/s, so that results are exact.

# %%
three, placement = three_machines()
speeds = {name: three.throughput(name, end - start) for name, (start, end) in placement.items()}
graph = build_flow_graph(three.cluster, three.model, placement, speeds)
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
print(
    "its capacity:", round(sum(flow.capacities[edge] for edge in flow.min_cut), 3), "tokens/s: the same, as it must be"
)

# %%
hk.Plan.from_placement(three, placement, method="by hand").show()

# %% [markdown]
# `T4-1` holds layer 9, which the A100 has already run. So requests enter the range of `T4-1` one layer later. This is
# **partial inference**; a mark on the bar shows it. Without partial inference, this link could not be used:

# %%
without = three.max_flow(placement, partial_inference=False)
print(f"with partial inference {flow.tokens_per_s:.0f} tokens/s, without {without.tokens_per_s:.0f}")

# %% [markdown]
# The flow splits into paths. Each path is a pipeline with its share of the flow, and the shares add up to the flow.

# %%
for stages, rate in decompose(flow, placement):
    print(f"{rate:7.1f} tokens/s  " + " → ".join(f"{s.node}[{s.start}:{s.end}]" for s in stages))

# %% [markdown]
# ## 3 Figure 4: a topology with its flow, and the pipelines of two requests
#
# This is the published plan of LLaMA-2 70B over three regions. First the flow on every link:

# %%
published = figure_4_plan()
published.show()

# %% [markdown]
# Then the pipelines of two requests, stage by stage:

# %%
ways = two_requests(published)
for name, stages in ways.items():
    print(f"{name}: " + " → ".join(f"{s.node}[{s.start}:{s.end}]" for s in stages))
published.show(highlight=[s.node for s in ways["request 1"]])

# %%
published.show(highlight=[s.node for s in ways["request 2"]])

# %% [markdown]
# ## 4 Assigning requests to pipelines
#
# At every hop the scheduler chooses the next machine by interleaved weighted round robin. The weights are the flow on
# the links. No path is fixed in advance, and over many requests each link carries its share.


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


policy = make_policy("helix", published)
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
            "share of the flow": f"{rate / published.flow_tokens_per_s:.1%}",
            "share of the requests": f"{counts[a, b] / REQUESTS:.1%}",
        }
        for (a, b), rate in published.flow_edges.items()
    ]
)

# %% [markdown]
# ## Exercises
#
# 1. Divide the bandwidth between the regions of section 1 by ten. Which of the three splits loses most?
# 2. Remove `T4-1` from the placement of section 2. What is the new flow? Compute it by hand first.
# 3. Assign requests with `make_policy("random", ...)` instead. How far do they differ from the shares of the flow?
# 4. Which link of section 3 do the two requests share, and is it in the minimum cut?
