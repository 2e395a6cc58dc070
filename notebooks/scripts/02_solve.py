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
# # 02 Solve: the program, its bounds and the solvers
#
# **Purpose.** This notebook states the placement problem in mathematics beside the code. It solves the paper's
# mixed-integer program with HiGHS and GLPK and shows why that program is not the default. Then it explains the
# pattern program and what a bound proves.
#
# **Takes** about two minutes on 2 cores (half a minute with `FAST=1`).

# %%
import os

import matplotlib.pyplot as plt
import pandas as pd

import helix_kit as hk
from helix_kit.placement import bounds
from helix_kit.placement.groups import groups_of
from helix_kit.placement.paper.program import build, size_of

FAST = os.environ.get("FAST") == "1"
LIMIT_S = 4 if FAST else 20

# %% [markdown]
# ## 1 The problem
#
# A model has $L$ layers. Node $i$ holds the layers $[s_i, e_i)$, at most $K_i$ of them, and then serves $T_i(e_i -
# s_i)$ tokens/s. Flow may go from $i$ to $j$ when $j$ can continue where $i$ stops: $s_j \le e_i < e_j$ (partial
# inference; without it, $e_i = s_j$). A link carries at most its bandwidth divided by the bytes of a token. Maximise
# the flow from the coordinator through all layers and back:
#
# $$\max \sum_j f_{0j} \quad\text{s.t.}\quad \sum_i f_{ij} = \sum_i f_{ji}, \qquad$$
# $$\sum_i f_{ij} \le \sum_k T_j(k)\, b_{jk}, \qquad f_{ij} \le c_{ij}\, d_{ij}$$
#
# with $b_{jk}$ = 1 when node $j$ holds $k$ layers, and $d_{ij}$ = 1 when the link may be used; $d_{ij}$ is tied to
# $s$ and $e$ by linear constraints with a big M. In code each family is one function:
#
# | family | function |
# |---|---|
# | one size per node, ranges inside the model | `define_placement_constraints` |
# | flow in = flow out | `define_flow_conservation_constraints` |
# | node throughput | `define_node_throughput_constraints` |
# | which links may be used | `define_connection_validity_constraints` |
# | link capacity | `define_link_capacity_constraints` |

# %%
sizes = {}
for name, model_name in [("cluster10", "llama-30b"), ("single24", "llama2-70b"), ("hetero42", "llama2-70b")]:
    problem = hk.Problem.of(hk.Cluster.preset(name), hk.Model.preset(model_name))
    size = size_of(build(problem))
    sizes[f"{model_name} on {name}"] = {
        "constraints": size.constraints,
        "variables": size.variables,
        "binary": size.binary,
    }
pd.DataFrame(sizes).T

# %% [markdown]
# ## 2 A case that the paper's program solves
#
# The case has six machines and six layers. HiGHS and GLPK agree where both finish within the limit, as they must. The
# pattern program gives the same value.

# %%
tiny = hk.Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 2}, {"gpu": "T4", "count": 4}]})
small = hk.Model.preset("SmolLM2-135M").model_copy(update={"name": "short", "num_layers": 6, "layer_gb": 4.0})
rows = {}
for solver in ("highs", "glpk"):
    plan = hk.plan(tiny, small, method="paper-milp", solver=solver, time_limit_s=LIMIT_S)
    rows[f"paper-milp, {solver}"] = {
        "tokens/s": plan.flow_tokens_per_s,
        "bound": plan.bound_tokens_per_s,
        "seconds": plan.seconds,
    }
plan = hk.plan(tiny, small)
rows["pattern, highs"] = {"tokens/s": plan.flow_tokens_per_s, "bound": plan.bound_tokens_per_s, "seconds": plan.seconds}
pd.DataFrame(rows).T.round(2)

# %% [markdown]
# ## 3 A case that the paper's program does not solve in time
#
# The case has ten machines and 60 layers. In the paper's program a big M switches the links on and off. That makes
# the relaxation loose, so bounds improve slowly: the published log of a commercial solver shows 3,803 s for this
# case, and no end for 24 machines. Throughputs and link capacities can be cut at a proven bound: that changes no
# optimum and tightens the relaxation a great deal.

# %%
ten, llama = hk.Cluster.preset("cluster10"), hk.Model.preset("llama-30b")
runs = {
    "as in the paper, HiGHS": hk.plan(
        ten, llama, method="paper-milp", time_limit_s=LIMIT_S, initial=False, tighten=False
    ),
    "cut at B1, HiGHS": hk.plan(ten, llama, method="paper-milp", time_limit_s=LIMIT_S, initial=False),
    "pattern program, HiGHS": hk.plan(ten, llama, time_limit_s=LIMIT_S),
    "pattern program, GLPK": hk.plan(ten, llama, solver="glpk", time_limit_s=LIMIT_S),
}
pd.DataFrame(
    {
        name: {
            "tokens/s": p.flow_tokens_per_s,
            "the solver's own bound": p.bounds.get("paper-milp", p.bound_tokens_per_s),
            "best bound known": p.bound_tokens_per_s,
            "seconds": p.seconds,
        }
        for name, p in runs.items()
    }
).T

# %% [markdown]
# Both bounds are proven. The second also uses the bounds of section 6, which hold for every method.
#
# ## 4 The gap over time
#
# Every plan keeps the value and the bound over the time of the solve.

# %%
fig, axes = plt.subplots(1, 3, figsize=(12, 3.2), sharey=True)
for ax, (name, p) in zip(axes, [item for item in runs.items() if "GLPK" not in item[0]]):
    seconds, values, proven = zip(*p.progress)
    seconds, values, proven = [*seconds, p.seconds], [*values, values[-1]], [*proven, p.bound_tokens_per_s]
    ax.step(seconds, proven, "--", where="post", label="bound")
    ax.step(seconds, values, where="post", label="best value")
    ax.set(xlabel="seconds", title=name, ylim=(0, 2 * runs["pattern program, HiGHS"].flow_tokens_per_s))
    ax.grid(alpha=0.3)
axes[0].set_ylabel("tokens/s")
axes[0].legend(frameon=False)
plt.show()

# %% [markdown]
# ## 5 The pattern program
#
# The pattern program has no positions. Fix a flow $F$. A *stage* of $l$ layers is a set of parallel *lanes*. A lane
# is a chain of machines whose layers add up to $l$; its rate is the rate of its slowest machine. The rates of the
# lanes add up to at least $F$. Let $a_{pg}$ be the number of machines of group $g$ in stage type $p$. Then solve
#
# $$\max \sum_p l_p\, y_p \quad\text{s.t.}\quad \sum_p a_{pg}\, y_p \le n_g, \qquad y_p \ge 0 \text{ integer}$$
#
# and $F$ is reached when the optimum is at least $L$. The program has one row for each group of equal machines (three
# for single24), so GLPK solves it as well as HiGHS. The method searches $F$ downwards from a bound, adds stage types
# by column generation, and verifies each success by an exact maximum flow.
#
# ## 6 What the bounds prove
#
# The compute bound assumes that all work is spread perfectly. **B1** is the largest $F$ at which the machines
# together still hold all layers, when each of them counts at most $F$: $\sum_i \max_k k \min(T_i(k)/F, 1) \ge L$. B1
# holds for any network, with or without partial inference.

# %%
table = {}
for name in ("single24", "geo24", "hetero42"):
    problem = hk.Problem.of(hk.Cluster.preset(name), hk.Model.preset("llama2-70b"))
    p = hk.plan(problem.cluster, problem.model, time_limit_s=6 if FAST else 30)
    table[name] = {
        "compute bound": problem.compute_bound,
        "B1": bounds.spread_bound(groups_of(problem), problem.num_layers),
        "best proven": p.bound_tokens_per_s,
        "plan": p.flow_tokens_per_s,
        "gap": f"{p.gap:.2%}",
        "seconds": round(p.seconds, 1),
    }
pd.DataFrame(table).T

# %% [markdown]
# A plan on 42 machines of seven kinds:

# %%
p.show()

# %% [markdown]
# ## Exercises
#
# 1. Split the compute bound of single24 by kind of machine. Which kind contributes most?
# 2. Cap the depth with `hk.plan(..., max_stages=12)`. What does a shallower pipeline cost in flow?
#    ([04](04_simulate.ipynb) shows what it gains in latency.)
# 3. Give the paper's program more time on cluster10. How long until it beats the pattern program's value?
# 4. Write the program to an LP file (`helix_kit.placement.solvers.solve.write_lp`) and find the big M.
