"""Emulation of another machine's speed: each step is padded to the time that the emulated machine's profile gives.

Arithmetic, batching and traffic are real. Only the length of each step is the profile's, times `time_scale`. A step
that takes longer than its profile says cannot be padded; it is counted as an overrun. A run with many overruns says
little about the emulated machine.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from helix_kit.profiles.profile import Profile
from helix_kit.runtime.transport.shaping import moment_of

TOLERANCE = 1.02
"""A step is an overrun if it takes more than 1.02 times its profile's time."""


class SegmentLoad(NamedTuple):
    """Work of a step in one segment of layers, through which the same requests pass."""

    num_layers: int
    prefill_tokens: int
    decode_requests: int


@contextlib.contextmanager
def behind_messages() -> Iterator[None]:
    """Let the messages of all workers go before what this thread computes, where a real-time policy allows it.

    Emulated machines share the cores of this one. A padded step has time to spare, but a message that waits until the
    steps of two other workers have computed comes late. Under `chrt --rr 10` a computing thread takes the priority
    below; a thread that wakes up for a message then gets a core at once.
    """
    policy = os.sched_getscheduler(0) if hasattr(os, "sched_getscheduler") else None
    if policy is None or policy not in (os.SCHED_RR, os.SCHED_FIFO):
        yield
        return
    usual = os.sched_getparam(0)
    lower = max(usual.sched_priority - 1, os.sched_get_priority_min(policy))
    os.sched_setparam(0, os.sched_param(lower))
    try:
        yield
    finally:
        os.sched_setparam(0, usual)


class Pacer:
    """Pads the steps of one worker and counts them. Without a `profile`, steps are counted but not padded."""

    def __init__(self, profile: Profile | None, time_scale: float = 1.0) -> None:
        self._profile, self._scale = profile, time_scale
        self._due_s = 0.0
        """When the last step was due to end."""
        self.steps = self.overruns = 0
        self.busy_s = self.overrun_s = 0.0

    def computing(self) -> contextlib.AbstractContextManager[None]:
        """What surrounds the computation of a step."""
        return contextlib.nullcontext() if self._profile is None else behind_messages()

    def begin(self, arrived_s: float) -> float:
        """Start of the next step, in seconds of the monotonic clock; the last of its rows arrived at `arrived_s`.

        A padded step starts when its rows have arrived and the step before was due to end. The time that the loop
        itself takes (to take messages in, or by sleeping a little too long) is then part of the padded time.
        """
        now_s = time.monotonic()
        return now_s if self._profile is None else moment_of(max(self._due_s, arrived_s), now_s)

    def finish(self, began_s: float, segments: list[SegmentLoad]) -> float:
        """Wait until the step that began at `began_s` is due to end; returns that moment."""
        now_s = time.monotonic()
        self.steps += 1
        if self._profile is None:
            self.busy_s += now_s - max(began_s, self._due_s)  # the step before may have ended after this one began
            self._due_s = now_s
            return now_s
        step_s = sum(n * self._profile.step_ms(prefill, decode) for n, prefill, decode in segments)
        step_s *= self._scale / 1e3
        due_s = began_s + step_s
        if now_s > began_s + step_s * TOLERANCE:
            self.overruns += 1
            self.overrun_s += now_s - due_s
            due_s = now_s
        elif due_s > now_s:
            time.sleep(due_s - now_s)
        self.busy_s += due_s - began_s
        self._due_s = due_s
        return due_s
