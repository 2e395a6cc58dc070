"""The clock of a fleet's simulations, on counted seconds."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from helix_kit.fleets import clock as module
from helix_kit.fleets.clock import FIRST_UNIT_S, MIN_EFFORT, OutOfTimeError, RunClock
from helix_kit.placement.watch import Watch


def test_a_run_takes_its_share_of_what_is_left_or_is_not_begun():
    watch = Watch(10.0, counted=True)
    clock = RunClock(watch)
    work = 3.0 / FIRST_UNIT_S  # three seconds at the usual length
    assert clock.effort(work, share=0.5) == 1.0
    watch.spend(5.0)
    assert clock.effort(work, share=0.5) == pytest.approx(2.5 / 3)
    watch.spend(3.0)
    assert clock.effort(work, share=0.5) == MIN_EFFORT
    watch.spend(1.0)
    assert clock.refused_s == 0
    with pytest.raises(OutOfTimeError):
        clock.effort(work, share=0.5)
    assert clock.refused_s == pytest.approx(3.0)


def test_what_a_run_took_is_expected_of_the_next(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    clock = RunClock(Watch(100.0, counted=True))
    with clock.timed(1e6):
        now[0] += 60.0
    assert clock.takes_s(1e6) == pytest.approx(30.0)  # the first also loads the simulator
    with clock.timed(1e6):
        now[0] += 7.0
    assert clock.takes_s(2e6) == pytest.approx(14.0)
    with pytest.raises(OutOfTimeError), clock.timed(1e6):
        raise OutOfTimeError
    assert clock.takes_s(2e6) == pytest.approx(14.0)  # a run that was broken off says nothing


def test_a_run_that_takes_longer_than_expected_is_broken_off(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    watch = Watch(10.0, counted=True)
    clock = RunClock(watch)
    watch.spend(10.9)
    with pytest.raises(OutOfTimeError), clock.timed(1.0):
        now[0] += 6.0
        clock.look(1.0, 20.0)
        watch.spend(0.2)
        clock.look(5.0, 20.0)
    assert clock.refused_s == pytest.approx(24.0)  # six seconds for a quarter of it


def test_the_users_stop_ends_a_run():
    clock = RunClock(Watch(10.0, stop=lambda: True, counted=True))
    with pytest.raises(OutOfTimeError):
        clock.look(0.0, 1.0)
    with pytest.raises(OutOfTimeError):
        clock.effort(1.0, share=1.0)
