"""Background work: one at a time, newer work makes older results void, errors reach the caller."""

import threading

from helix_kit.widgets.background import Background


def test_result_and_error_reach_their_callbacks():
    work, results, errors = Background(), [], []
    work.start(lambda stop: 7, results.append, errors.append)
    assert work.wait(10) and results == [7] and not errors
    work.start(lambda stop: 1 / 0, results.append, errors.append)
    assert work.wait(10) and results == [7] and isinstance(errors[0], ZeroDivisionError)


def test_newer_work_stops_older_work_and_its_result_is_dropped():
    work, results = Background(), []
    started = threading.Event()

    def first(stop):
        started.set()
        assert stop.wait(10), "newer work sets the stop of older work"
        return "old"

    work.start(first, results.append, results.append)
    old = work._thread
    assert started.wait(10)
    work.start(lambda stop: "new", results.append, results.append)
    assert work.wait(10)
    old.join(10)
    assert results == ["new"]


def test_cancelled_work_reports_nothing_and_wait_tells_that_it_runs():
    work, results, release = Background(), [], threading.Event()

    def slow(stop):
        release.wait(10)
        return "done"

    work.start(slow, results.append, results.append)
    assert work.running and not work.wait(0.01)
    work.cancel()
    assert work.stop.is_set()
    release.set()
    assert work.wait(10) and results == []
