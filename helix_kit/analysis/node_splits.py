"""How the nodes of a plan with several GPUs divide their layers, as sentences: for `explain`."""

from __future__ import annotations

from helix_kit.placement.plan import Plan
from helix_kit.profiles import NodeSplit, how_divided, splits_of
from helix_kit.profiles.roofline import is_estimate

MIN_GAIN = 1.02
"""Ratio of estimates from which another way is said to serve more."""


def split_words(plan: Plan) -> list[str]:
    """A sentence for each kind of node with several GPUs whose way to divide the layers is given or was chosen.

    Parameters
    ----------
    plan
        Its cluster may say how a node's GPUs divide the layers; otherwise its profiles do.

    Returns
    -------
    list of str
        Empty where nodes have one GPU, or where a measured table alone tells their speed.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, plan
    >>> cluster = Cluster.model_validate({"name": "two", "nodes": [{"gpu": "H100-80G", "gpus_per_node": 2}]})
    >>> print(*split_words(plan(cluster, Model.preset("llama-30b"), method="proportional")))
    H100-80Gx2: 2 GPUs share each layer (tensor parallel 2), which serves 1.4 times as much as layers in turn.
    """
    sentences = []
    placed = {node.kind: node for node in plan.cluster.nodes if node.name in plan.placement and node.gpus_per_node > 1}
    for kind, node in placed.items():
        profile, given = plan.profiles[kind], node.tensor_parallel
        if given is None and not is_estimate(profile):
            continue
        ranks = given or profile.tensor_parallel
        how = how_divided(ranks, node.gpus_per_node // ranks)
        splits = splits_of(plan.cluster, node, plan.model, plan.lengths)
        others = [split for split in splits if split.tensor_parallel != ranks]
        own = next((split for split in splits if split.tensor_parallel == ranks), None)
        said = ", as the cluster's file says" if given else ""
        sentences.append(f"{kind}: {how}{said}{_compared(own, others, given is None)}.")
    return sentences


def _compared(own: NodeSplit | None, others: list[NodeSplit], was_chosen: bool) -> str:
    """What the other ways would serve, by the estimate."""
    if own is None or not others or own.work <= 0:
        return ""
    best = others[0]
    name = _name(best)
    if was_chosen and best.work > 0:
        ratio = f"{own.work / best.work:.1f}"
        return (
            f", which serves about as much as {name}"
            if ratio == "1.0"
            else f", which serves {ratio} times as much as {name}"
        )
    if best.work > MIN_GAIN * own.work:
        return f"; by the estimate, {name} would serve {best.work / own.work:.1f} times as much"
    return ""


def _name(split: NodeSplit) -> str:
    if split.tensor_parallel == 1:
        return "layers in turn"
    return f"tensor parallel {split.tensor_parallel}"


__all__ = ["split_words"]
