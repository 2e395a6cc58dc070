"""The clock of a solve: its limit, the user's stop, and what it records and reports."""

import threading

from helix_kit.placement.watch import Watch


def test_only_better_values_and_bounds_are_recorded():
    heard = []
    watch = Watch(60.0, progress=lambda *now: heard.append(now[1:]))
    watch.report(value=1.0)  # no bound yet: JSON has no infinity, so the record starts with the first bound
    assert watch.history == []
    watch.report(bound=10.0)
    watch.report(value=0.5, bound=11.0)
    watch.report(value=3.0, bound=9.0, message="found")
    assert [row[1:] for row in watch.history] == [(1.0, 10.0), (3.0, 9.0)]
    assert heard == [(1.0, float("inf"), ""), (1.0, 10.0, ""), (3.0, 9.0, "found")]


def test_a_message_is_reported_even_without_progress():
    heard = []
    Watch(60.0, progress=lambda *now: heard.append(now[3])).report(message="done")
    assert heard == ["done"]


def test_it_is_over_at_the_limit_or_when_stopped():
    assert Watch(0.0).is_over() and Watch(0.0).left_s == 0.0 and not Watch(0.0).stopped()
    event = threading.Event()
    watches = [Watch(60.0, stop=event), Watch(60.0, stop=event.is_set)]
    assert not any(watch.is_over() for watch in watches)
    event.set()
    assert all(watch.stopped() and watch.is_over() for watch in watches)


def test_incumbents_of_a_part_reach_the_whole_but_its_bounds_do_not():
    shown, heard = [], []
    whole = Watch(60.0, lambda *now: heard.append(now[1:3]), incumbent=shown.append)
    whole.report(bound=10.0)
    part = whole.for_part(5.0)
    part.report(value=4.0, bound=6.0, placement={"a": (0, 4)})
    part.report(value=3.0, placement={"a": (0, 3)})
    whole.report(value=4.0, placement={"a": (0, 2)})
    assert shown == [{"a": (0, 4)}]
    assert heard == [(0.0, 10.0), (4.0, 10.0)] and (whole.value, whole.bound, part.bound) == (4.0, 10.0, 6.0)
    assert part.time_limit_s == 5.0


def test_a_part_stops_with_the_whole():
    stop = threading.Event()
    part = Watch(60.0, stop=stop).for_part(60.0)
    assert not part.is_over()
    stop.set()
    assert part.is_over()


def test_a_part_shares_the_clock():
    whole = Watch(60.0, counted=True)
    whole.spend(10.0)
    part = whole.for_part(5.0)
    assert (part.seconds, part.left_s) == (0.0, 5.0)
    part.spend(6.0)
    assert part.is_over() and not whole.is_over()
    assert whole.for_part(1000.0).left_s <= 60.0 - 16.0


def test_counted_work_is_over_after_the_same_number_of_steps():
    counts = []
    for _ in range(2):
        watch = Watch(1.0, counted=True)
        counts.append(next(n for n in range(10_000) if watch.is_over()))
    assert counts[0] == counts[1] > 10
