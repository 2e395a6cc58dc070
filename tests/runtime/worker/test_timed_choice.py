"""A choice by times is what two series bear out; a machine that is busy with other work decides nothing."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("torch")

from helix_kit.runtime.worker import timed_choice
from helix_kit.runtime.worker.timed_choice import agreed_choice, least_times


class Machine:
    """A clock that only the work advances. `slowdown` says by how much the next piece of work takes longer."""

    def __init__(self, slowdown: Iterator[float]) -> None:
        self.now_s, self._slowdown = 0.0, slowdown

    def clock(self) -> float:
        return self.now_s

    def work(self, seconds: float) -> None:
        self.now_s += seconds * next(self._slowdown)


def choose(times: dict[str, tuple[float, ...]]) -> str:
    return min(times, key=times.__getitem__)


def log_time(choice: str, times: dict[str, tuple[float, ...]]) -> float:
    return math.log(times[choice][0])


def chosen(machine: Machine, **seconds: float) -> str | None:
    """What is chosen on a machine between ways that take so many seconds without other work."""
    ways: dict[str, Callable[[], object]] = {
        name: functools.partial(machine.work, value) for name, value in seconds.items()
    }

    def take_times() -> dict[str, tuple[float, ...]]:
        return {name: (least,) for name, least in least_times(ways, machine.clock).items()}

    return agreed_choice(take_times, choose, log_time)


def test_the_fastest_is_chosen_on_an_idle_machine() -> None:
    assert chosen(Machine(itertools.repeat(1.0)), slow=1e-3, fast=0.8e-3) == "fast"


@pytest.mark.parametrize("period", [3, 5, 7, 11])
def test_slow_moments_do_not_hide_the_fastest(period: int) -> None:
    """Every so many pieces of work one takes ten times as long, whichever it is."""
    slowdown = (10.0 if turn % period == 0 else 1.0 for turn in itertools.count())
    assert chosen(Machine(slowdown), slow=1e-3, fast=0.8e-3) == "fast"


def test_a_slow_minute_slows_all_ways_alike() -> None:
    slowdown = (3.0 if 10 < turn < 40 else 1.0 for turn in itertools.count())
    assert chosen(Machine(slowdown), slow=1e-3, fast=0.8e-3) == "fast"


def test_a_load_that_hits_one_way_in_a_whole_series_is_outvoted() -> None:
    """In the first series the faster way is always interrupted; the two series after it agree."""
    in_series = 2 * (timed_choice.MIN_ROUNDS + 1)
    slowdown = (4.0 if turn < in_series and turn % 2 else 1.0 for turn in itertools.count())
    assert chosen(Machine(slowdown), slow=10e-3, fast=8e-3) == "fast"


def test_series_that_always_contradict_each_other_give_no_choice() -> None:
    """First the one way is interrupted each time, then the other one, and so on."""
    in_series = 2 * (timed_choice.MIN_ROUNDS + 1)
    slowdown = (4.0 if turn // in_series % 2 == turn % 2 else 1.0 for turn in itertools.count())
    assert chosen(Machine(slowdown), one=10e-3, other=10e-3) is None


def test_ways_that_take_nearly_the_same_time_need_no_agreement() -> None:
    in_series = 2 * (timed_choice.MIN_ROUNDS + 1)
    slowdown = (1.04 if turn // in_series % 2 == turn % 2 else 1.0 for turn in itertools.count())
    assert chosen(Machine(slowdown), one=10e-3, other=10e-3) in ("one", "other")


def test_long_work_is_not_repeated_often() -> None:
    machine = Machine(itertools.repeat(1.0))
    assert chosen(machine, one=1.0, other=2.0) == "one"
    assert machine.now_s == 2 * (timed_choice.MIN_ROUNDS + 1) * 3.0
