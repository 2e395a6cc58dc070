"""What a change of the cluster would bring: one more machine of a kind, a wider link, the loss of a machine.

Every change is a new cluster, which is planned from scratch. So the numbers are those of real plans, not a linear
estimate from the present one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helix_kit._deprecation import renamed_keywords
from helix_kit.cluster import Cluster, Link, LinkException, Network, Node
from helix_kit.errors import HelixKitError
from helix_kit.placement.plan import Plan
from helix_kit.planning import plan as solve

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int, str], None]
"""Called with (changes done, changes in all, name of the next change)."""


@dataclass(frozen=True)
class Change:
    """A changed cluster.

    Examples
    --------
    >>> from helix_kit import Cluster
    >>> smaller = Cluster.model_validate({"name": "five", "nodes": [{"gpu": "L4", "count": 5}]})
    >>> Change("one L4 less", "lose", smaller, usd_per_hour=-0.7).kind
    'lose'
    """

    name: str
    """What was done, as the tables say it."""
    kind: str
    """``add``, ``lose`` or ``widen``."""
    cluster: Cluster
    """The cluster after the change."""
    usd_per_hour: float | None = None
    """Additional cost in dollars per hour; None: not known."""


def changes(plan: Plan, *, add: Iterable[str] | None = None, widen: float = 2.0, lose: bool = True) -> list[Change]:
    """The changes that `what_if` tries by default.

    Parameters
    ----------
    plan
        The plan whose cluster is changed.
    add
        GPUs of the catalogue of which one machine is added in each region; None: the kinds that the cluster has,
        each in the regions where it has them.
    widen
        Factor on the bandwidth of all links between regions (within, when there is one region).
    lose
        Whether to take away one machine of each kind in each region.

    Returns
    -------
    list of Change
        Machines added, links widened, machines lost, in this order.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, plan
    >>> cluster = Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    >>> six = plan(cluster, Model.preset("llama-30b"), method="proportional")
    >>> [change.name for change in changes(six)]
    ['one more L4', 'links within the region 2x as wide', 'one L4 less']
    """
    cluster = plan.cluster
    found: list[Change] = []
    places = list({(n.kind, n.region): n for n in cluster.nodes}.values())
    if add is None:
        wanted = places
    else:
        regions = [r for r in cluster.regions if any(n.region == r for n in cluster.nodes)]
        wanted = [Node(name="new", gpu=gpu, region=region) for gpu in add for region in regions]
    for like in wanted:
        node = like.model_copy(update={"name": _free_name(cluster, like.kind)})
        where = f" in {node.region}" if len(cluster.regions) > 1 else ""
        price = cluster.gpu(node.gpu).price_usd_per_hour
        cost = None if price is None else price * node.gpus_per_node
        found.append(Change(f"one more {node.kind}{where}", "add", _with(cluster, node), cost))
    if widen > 1:
        found += _widened(cluster, widen)
    if lose:
        for last in places:
            rest = [n.name for n in cluster.nodes if n is not last]
            if not rest:
                continue
            price = cluster.gpu(last.gpu).price_usd_per_hour
            saved = None if price is None else -price * last.gpus_per_node
            where = f" in {last.region}" if len(cluster.regions) > 1 else ""
            found.append(Change(f"one {last.kind} less{where}", "lose", cluster.subset(rest, cluster.name), saved))
    return found


@renamed_keywords(time_limit="time_limit_s")
def what_if(
    plan: Plan,
    asked: Iterable[Change] | None = None,
    *,
    time_limit_s: float = 10.0,
    progress: Progress | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Plan each changed cluster, and rank the changes by the tokens/s that they gain.

    Parameters
    ----------
    plan
        The plan to improve on.
    asked
        The changes; None: `changes(plan)`.
    time_limit_s
        Seconds of solving for each change.
    progress
        Called with (changes done, changes in all, name of the next change).
    options
        Further options of `helix_kit.plan`; the method is the default one.

    Returns
    -------
    pandas.DataFrame
        One row a change, the largest gain first: change, kind, flow_tokens_per_s, gain_tokens_per_s, gain_percent, gap
        (empty where no plan exists), usd_per_hour (additional cost) and gain_per_usd (tokens/s for each dollar per
        hour; for a loss, the tokens/s given up for each dollar saved). The gain is against a new plan of the unchanged
        cluster with the same options, or against `plan` where that is better.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, plan
    >>> cluster = Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    >>> six = plan(cluster, Model.preset("llama-30b"), method="proportional")
    >>> table = what_if(six, time_limit_s=2.0)
    >>> table["kind"].tolist()[-1]
    'lose'
    """
    import pandas as pd

    todo = list(changes(plan) if asked is None else asked)
    base = max(plan.flow_tokens_per_s, _flow(plan, plan.cluster, time_limit_s, options)[0])
    rows = []
    for index, change in enumerate(todo):
        if progress:
            progress(index, len(todo), change.name)
        flow, gap = _flow(plan, change.cluster, time_limit_s, options)
        if change.kind != "lose":
            # The old plan is still possible on a larger cluster, whatever the solver found in its time.
            flow = max(flow, base)
        gain = flow - base
        rows.append(
            {
                "change": change.name,
                "kind": change.kind,
                "flow_tokens_per_s": flow,
                "gain_tokens_per_s": gain,
                "gain_percent": 100 * gain / base if base else float("nan"),
                "gap": gap,
                "usd_per_hour": change.usd_per_hour,
                "gain_per_usd": gain / change.usd_per_hour if change.usd_per_hour else None,
            }
        )
    if progress:
        progress(len(todo), len(todo), "done")
    table = pd.DataFrame(rows)
    return table.sort_values("gain_tokens_per_s", ascending=False, kind="stable", ignore_index=True)


def losses(plan: Plan) -> pd.DataFrame:
    """The flow that is left when one machine fails and the placement stays as it is.

    Parameters
    ----------
    plan
        The plan whose machines fail, one at a time.

    Returns
    -------
    pandas.DataFrame
        One row a machine, the largest loss first: node, flow_tokens_per_s, loss_tokens_per_s and loss_percent.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, plan
    >>> cluster = Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    >>> six = plan(cluster, Model.preset("llama-30b"), method="proportional")
    >>> losses(six)["loss_percent"].tolist()[0]
    100.0
    """
    import pandas as pd

    rows = []
    for name in plan.placement:
        rest = {n: span for n, span in plan.placement.items() if n != name}
        flow = plan.problem.max_flow(rest, partial_inference=plan.partial_inference).tokens_per_s
        rows.append(
            {
                "node": name,
                "flow_tokens_per_s": flow,
                "loss_tokens_per_s": plan.flow_tokens_per_s - flow,
                "loss_percent": 100 * (1 - flow / plan.flow_tokens_per_s) if plan.flow_tokens_per_s else 0.0,
            }
        )
    return pd.DataFrame(rows).sort_values("loss_tokens_per_s", ascending=False, kind="stable", ignore_index=True)


def _flow(plan: Plan, cluster: Cluster, time_limit_s: float, options: dict[str, Any]) -> tuple[float, float | None]:
    # Profiles of kinds that the plan knows stay as they are; new kinds get theirs from the tables.
    known = {kind: plan.profiles[kind] for kind in cluster.kind_counts if kind in plan.profiles}
    try:
        options = {"workload": plan.lengths, **options}
        changed = solve(cluster, plan.model, time_limit_s=time_limit_s, profiles=known, seed=plan.seed, **options)
    except HelixKitError:
        return 0.0, None
    return changed.flow_tokens_per_s, changed.gap


def _with(cluster: Cluster, node: Node) -> Cluster:
    return Cluster(
        name=cluster.name,
        coordinator=cluster.coordinator,
        nodes=(*cluster.nodes, node),
        network=_rule(cluster, node),
        gpus=cluster.gpus,
        memory_share=cluster.memory_share,
        throughput=cluster.throughput,
    )


def _rule(cluster: Cluster, node: Node) -> Network:
    """The network, with a rule between regions where only exceptions were given: the median of those exceptions."""
    network = cluster.network
    if network.between_regions is not None or len(cluster.regions) == 1:
        return network
    crossing = [link for link in network.links if cluster.region_of(link.ends[0]) != cluster.region_of(link.ends[1])]
    middle = Link(
        bandwidth_gbps=_median([link.bandwidth_gbps for link in crossing]),
        latency_ms=_median([link.latency_ms for link in crossing]),
    )
    return network.model_copy(update={"between_regions": middle})


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def _widened(cluster: Cluster, factor: float) -> list[Change]:
    network, several = cluster.network, len(cluster.regions) > 1

    def wider(link: Link) -> Link:
        return link.model_copy(update={"bandwidth_gbps": link.bandwidth_gbps * factor})

    def concerned(link: LinkException) -> bool:
        a, b = link.ends
        return (cluster.region_of(a) != cluster.region_of(b)) == several

    update: dict[str, Any] = {"links": tuple(wider(x) if concerned(x) else x for x in network.links)}
    if several and network.between_regions is not None:
        update["between_regions"] = wider(network.between_regions)
    if not several:
        update["within_region"] = wider(network.within_region)
    name = f"links {'between regions' if several else 'within the region'} {factor:g}x as wide"
    return [Change(name, "widen", cluster.model_copy(update={"network": network.model_copy(update=update)}))]


def _free_name(cluster: Cluster, kind: str) -> str:
    taken = {n.name for n in cluster.nodes}
    return next(name for i in range(len(taken) + 1) if (name := f"{kind}-{i}") not in taken)
