"""Partitions of regions, and which set is searched next."""

import itertools

from helix_kit.placement.pattern.region_sets import RegionSets, partitions_of
from helix_kit.placement.watch import Watch


def test_partitions_of_many_regions_are_of_every_kind():
    """Ten regions have 115975 partitions. Those drawn have few sets as often as many, and no region is favoured."""
    names = list("abcdefghij")
    found = list(partitions_of(names))
    assert all(sorted(n for part in partition for n in part) == names for partition in found)
    assert len({frozenset(partition) for partition in found}) == len(found) > 2000
    for sets in range(2, 9):
        assert sum(len(partition) == sets for partition in found) > 40
    alone = [sum((n,) in partition for partition in found) for n in names]
    assert max(alone) < 1.2 * min(alone)
    assert len(list(partitions_of(names[:5]))) == 52


def test_sets_of_regions_are_bounded_on_demand():
    asked = []

    def upper_bound(regions):
        asked.append(regions)
        return 10.0 * len(regions)

    sets = RegionSets("abcdefgh", upper_bound)
    assert sets.next_set(0.0, Watch(60)) == ("a",)
    assert set(asked) <= {(n,) for n in "abcdefgh"}
    assert sets.next_set(0.0, Watch(60, stop=lambda: True)) is None


def test_a_begun_partition_is_finished_first():
    """With the regions alone searched, {a, b, c} makes {d, e} the next set, though another set promises more."""
    value = {"a": 10.0, "b": 10.0, "c": 10.0, "d": 14.0, "e": 10.0}

    sets = RegionSets(list(value), lambda s: sum(value[r] for r in s) * (1 + 0.2 * (len(s) - 1)))
    sets.known = {(r,): v for r, v in value.items()} | {("a", "b", "c"): 40.0}
    anew = sets.next_set(55.0, Watch(60))
    assert sets.next_set(55.0, Watch(60), ("a", "b", "c")) == ("d", "e") != anew
    sets.known["d", "e"] = 25.0
    after = sets.next_set(65.0, Watch(60), ("d", "e"))
    assert after is not None and after not in sets.known


def test_what_a_set_needs_by_hand():
    """13 are to be beaten. Beside {a, b} there is c (3); beside a there is {b, c} (at most 9) or b and c (7)."""
    sets = RegionSets("abc", {("b", "c"): 9.0}.__getitem__)
    sets.known = {("b",): 4.0, ("c",): 3.0}
    assert sets.required_flow(("a", "b"), 13.0) == 10.0
    assert sets.required_flow(("a",), 13.0) == 4.0
    assert sets.required_flow(("a", "b", "c"), 13.0) == 13.0


def test_a_few_regions_are_searched_alone_then_together():
    sets = RegionSets("ab", lambda s: 10.0 * len(s))
    order = []
    while (regions := sets.next_set(0.0, Watch(60))) is not None:
        order.append(regions)
        sets.known[regions] = 1.0
    assert order == [("a",), ("b",), ("a", "b")]


def test_sets_that_cannot_beat_the_best_plan_are_not_searched():
    """Each region carries 10 at most, and all together 25: a plan of 25 leaves nothing to search."""
    sets = RegionSets("ab", lambda s: 10.0 if len(s) == 1 else 25.0)
    sets.known = {("a",): 10.0, ("b",): 10.0}
    assert sets.next_set(24.0, Watch(60)) == ("a", "b")
    assert sets.next_set(25.0, Watch(60)) is None


def test_sums_of_disjoint_sets_are_the_best_of_all_choices():
    flows = {("a",): 3.0, ("b",): 4.0, ("a", "b"): 8.0, ("c",): 2.0, ("b", "c"): 7.0, ("d",): 5.0}

    def best(inside):
        chosen = [s for s in flows if set(s) <= set(inside)]
        return max(
            sum(flows[s] for s in some)
            for count in range(len(chosen) + 1)
            for some in itertools.combinations(chosen, count)
            if len({r for s in some for r in s}) == sum(map(len, some))
        )

    for inside in ["abc", "bcd", "abcd", "ac", ""]:
        assert RegionSets.best_sum_within(tuple(inside), flows) == best(inside)


def test_partitions_with_a_set_are_the_ones_of_the_greatest_sum():
    flows = {("a",): 3.0, ("b",): 4.0, ("c",): 2.0, ("b", "c"): 7.0}
    found = RegionSets.partitions_with(("a",), flows)
    assert [sorted(p) for p in found[:2]] == [[("a",), ("b", "c")], [("a",), ("b",), ("c",)]]
    assert RegionSets.partitions_with(("a",), {("a",): 3.0}) == []
