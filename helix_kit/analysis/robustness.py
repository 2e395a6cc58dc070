"""How a plan holds up when the profiles it was made with are wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from helix_kit._deprecation import renamed_keywords
from helix_kit.analysis.request_lengths import pairs_of
from helix_kit.errors import HelixKitError, InputError
from helix_kit.flow import Flow
from helix_kit.placement.plan import Plan
from helix_kit.placement.planner import plan_problem
from helix_kit.placement.problem import Problem
from helix_kit.profiles import Profile

if TYPE_CHECKING:
    import pandas as pd


@renamed_keywords(duration="duration_s")
def robustness(
    plan: Plan,
    *,
    error: float = 0.2,
    samples: int = 50,
    seed: int = 0,
    against: Sequence[str] = ("swarm", "petals", "separate"),
    measure: Literal["flow", "served"] = "flow",
    duration_s: float = 600.0,
) -> pd.DataFrame:
    """Flows of a plan and of rival placements when machines are faster or slower than the profiles say.

    In each sample the times of each kind of machine are multiplied by a factor drawn from [1 - error, 1 + error],
    independently by kind. The placements were made before, with the profiles as given.

    Parameters
    ----------
    plan
        The plan to test.
    error
        Largest relative error of the times, above 0 and below 1.
    samples
        Number of draws.
    seed
        Seed of the draws.
    against
        Methods that make the rivals; one that has no plan here is left out.
    measure
        ``flow`` computes the maximum flow anew in each sample. ``served`` simulates instead (offline, by our
        runtime's rules), and compares decode tokens/s. Requests then follow the flow as it was planned, since the
        scheduler does not know that the profiles are wrong. Rivals that hold more layers on a node than fit, as
        separate pipelines may, are left out then.
    duration_s
        Simulated seconds with ``measure="served"``.

    Returns
    -------
    pandas.DataFrame
        One row a placement, the plan first: method, as_planned_tokens_per_s, the mean, p5 and worst tokens/s over the
        samples, and beaten_by_plan_percent, the share of the samples in which the plan has more.

    Raises
    ------
    InputError
        For a wrong `error`, `samples` or `measure`.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, plan
    >>> cluster = Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    >>> six = plan(cluster, Model.preset("llama-30b"), method="proportional")
    >>> table = robustness(six, samples=2, against=["swarm"])
    >>> table["method"].tolist(), bool((table["worst"] <= table["mean"]).all())
    (['proportional', 'swarm'], True)
    """
    import pandas as pd

    if not 0 < error < 1:
        raise InputError("expected a share above 0 and below 1", field="error", value=error)
    if samples < 1:
        raise InputError("expected at least 1", field="samples", value=samples)
    if measure not in ("flow", "served"):
        raise InputError("expected flow or served", field="measure", value=measure)
    measured = _flow_in if measure == "flow" else partial(_served_in, duration_s=duration_s)
    rivals = [plan]
    for method in against:
        try:
            rivals.append(plan_problem(plan.problem, method=method, seed=plan.seed))
        except HelixKitError:
            continue  # a method without a plan here is left out
        if measure == "served" and not plan.problem.holds(rivals[-1].placement):
            rivals.pop()
    rng = np.random.default_rng(seed)
    flows = np.zeros((samples, len(rivals)))
    for row in flows:
        factors = {kind: float(rng.uniform(1 - error, 1 + error)) for kind in plan.profiles}
        world = Problem.of(plan.cluster, plan.model, scaled(plan.profiles, factors), plan.lengths)
        row[:] = [measured(world, rival) for rival in rivals]
    return pd.DataFrame(
        {
            "method": [rival.method for rival in rivals],
            "as_planned_tokens_per_s": [
                rival.flow_tokens_per_s if measure == "flow" else measured(plan.problem, rival) for rival in rivals
            ],
            "mean": flows.mean(axis=0),
            "p5": np.quantile(flows, 0.05, axis=0),
            "worst": flows.min(axis=0),
            "beaten_by_plan_percent": [None, *(100 * (flows[:, :1] > flows[:, 1:]).mean(axis=0))],
        }
    )


def _flow_in(world: Problem, rival: Plan) -> float:
    # Requests do not change between separate pipelines; in all other plans they may use every link.
    links = list(rival.flow_edges) if rival.method.startswith("separate") else None
    return world.max_flow(rival.placement, partial_inference=rival.partial_inference, links=links).tokens_per_s


def _served_in(world: Problem, rival: Plan, duration_s: float) -> float:
    from helix_kit.simulator import score

    planned = Flow(rival.flow_tokens_per_s, rival.flow_edges, {}, ())
    judged = (world, rival.placement, planned)
    return score(judged, duration_s=duration_s, lengths=pairs_of(rival)).decode_tokens_per_s


def scaled(profiles: Mapping[str, Profile], time_factors: Mapping[str, float]) -> dict[str, Profile]:
    """Profiles whose times are multiplied by the factor of their kind."""
    result = {}
    for kind, profile in profiles.items():
        factor = time_factors.get(kind, 1.0)
        update = {
            name: curve.model_copy(update={"y": tuple(y * factor for y in curve.y)})
            for name in ("prefill_ms_per_layer", "decode_ms_per_layer")
            for curve in [getattr(profile, name)]
        }
        update["source"] = f"{profile.source}; times scaled by {factor:.3g}"
        result[kind] = profile.model_copy(update=update)
    return result
