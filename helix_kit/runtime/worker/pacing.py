"""Making one machine behave as another: a step is padded to the time that the emulated kind's profile gives.

Arithmetic, batching and traffic are real; only the length of each step is the profile's (times `time_scale`). A step
that takes longer than its profile cannot be padded: it is an overrun, and a run with many of them says little about
the emulated machines.
"""

from __future__ import annotations

import time

from helix_kit.profiles.profile import Profile

TOLERANCE = 1.02
"""A step within 2 % of its profile's time is on time."""


class Pacer:
    """Pads steps of one worker; `profile` None lets steps take what they take."""

    def __init__(self, profile: Profile | None, time_scale: float = 1.0) -> None:
        self._profile, self._scale = profile, time_scale
        self._due = 0.0
        self.steps = self.overruns = 0
        self.busy_s = self.overrun_s = 0.0

    def begin(self, back_to_back: bool) -> float:
        """Start of the next step, in seconds of the monotonic clock.

        A step that follows another without a pause starts when that one was due: the loop's own overhead (taking
        messages in, sleeping a little too long) is then inside the padded time instead of on top of it.
        """
        now = time.monotonic()
        return self._due if back_to_back and self._profile is not None and now - self._due < 0.05 else now

    def finish(self, began: float, segments: list[tuple[int, int, int]]) -> None:
        """Wait until the step that `began` is due.

        `segments` lists (layers, prefill tokens, decode requests) of each part of the step.
        """
        now = time.monotonic()
        self.steps += 1
        if self._profile is None:
            self.busy_s += now - began
            self._due = now
            return
        step_s = sum(n * self._profile.step_ms(prefill, decode) for n, prefill, decode in segments)
        step_s *= self._scale / 1e3
        due = began + step_s
        if now > began + step_s * TOLERANCE:
            self.overruns += 1
            self.overrun_s += now - due
            due = now
        elif due > now:
            time.sleep(due - now)
        self.busy_s += due - began
        self._due = due
