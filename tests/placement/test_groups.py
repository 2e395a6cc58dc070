"""Groups: one for each kind and region, tables as far as nodes hold layers."""

import helix_kit as hk
from helix_kit.placement.groups import groups_of


def test_groups_are_kinds_in_regions():
    problem = hk.Problem.of(hk.Cluster.preset("geo24"), hk.Model.preset("llama-30b"))
    groups = groups_of(problem)
    assert sorted(n for g in groups for n in g.nodes) == sorted(n.name for n in problem.cluster.nodes)
    assert len({(g.kind, g.region) for g in groups}) == len(groups)
    for group in groups:
        assert {problem.kind_of[n] for n in group.nodes} == {group.kind}
        assert {problem.cluster.region_of(n) for n in group.nodes} == {group.region}
        assert group.max_layers == problem.max_layers(group.nodes[0]) == len(group.throughput)


def test_only_some_nodes_and_forced_ranges():
    problem = hk.Problem.of(hk.Cluster.preset("single24"), hk.Model.preset("llama2-70b"))
    (group,) = groups_of(problem, ["T4-1", "T4-0"], forced={"T4-5": (0, 7)})
    assert group.nodes == ("T4-0", "T4-1") and group.max_layers == 7
    # Beyond four layers a T4 is scaled down from its T(4).
    assert group.throughput[6] == problem.throughput("T4-0", 4) * 4 / 7
