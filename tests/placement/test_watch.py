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
