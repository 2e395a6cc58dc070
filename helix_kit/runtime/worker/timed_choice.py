"""Choices between ways of computing the same, by their times on this machine, which may be busy with other work.

The ways take turns, so that a slow moment affects all of them, and the least time of each counts. All times are taken
in two series, one after the other. A choice holds if it is the fastest in both, or nearly so. If the series contradict
each other, further ones are taken; if they all do, there is no choice, and nothing is to be kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

TIME_LIMIT_S = 0.004
"""Time of the processor for one number of rows in one series, after `MIN_ROUNDS`."""
MIN_ROUNDS, MAX_ROUNDS = 3, 10
MAX_SERIES = 4
AGREEMENT = 1.1
"""A choice may take this many times as long as the fastest one of a series."""

Times = dict[str, tuple[float, ...]]
"""Seconds by the name of a way to compute, for each of several numbers of rows."""
C = TypeVar("C")


def clock_of_products() -> Callable[[], float]:
    """The clock for products of torch.

    A thread's own time leaves out that of other programs; it would also leave out that of torch's other threads.
    """
    return time.thread_time if torch.get_num_threads() == 1 else time.perf_counter


def least_times(ways: Mapping[str, Callable[[], object]], clock: Callable[[], float]) -> dict[str, float]:
    """Least seconds of each way, in at most `MAX_ROUNDS` rounds, after one round in which kernels are made."""
    for compute in ways.values():
        compute()
    least = dict.fromkeys(ways, math.inf)
    began = clock()
    for done in range(MAX_ROUNDS):
        if done >= MIN_ROUNDS and clock() - began > TIME_LIMIT_S:
            break
        for name, compute in ways.items():
            start = clock()
            compute()
            least[name] = min(least[name], clock() - start)
    return least


def agreed_choice(
    take_times: Callable[[], Times], choose: Callable[[Times], C], log_time: Callable[[C, Times], float]
) -> C | None:
    """What two series of times, one after the other, both bear out; None if no two do.

    Parameters
    ----------
    take_times
        Takes one series.
    choose
        The choice by some times.
    log_time
        Mean logarithm of the seconds of a choice by some times.
    """
    before = take_times()
    for _ in range(MAX_SERIES - 1):
        after = take_times()
        choice = choose({name: tuple(map(min, before[name], after[name])) for name in before})
        if all(
            log_time(choice, times) - log_time(choose(times), times) <= math.log(AGREEMENT) for times in (before, after)
        ):
            return choice
        before = after
    return None
