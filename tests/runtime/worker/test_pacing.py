"""Steps are padded to the profile's time, and late ones are counted."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from helix_kit.profiles.profile import Curve, Profile
from helix_kit.runtime.worker import pacing
from helix_kit.runtime.worker.pacing import Pacer, SegmentLoad


class Clock:
    """A clock that only sleeping moves on."""

    def __init__(self) -> None:
        self.now_s = 7.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def test_pacer_pads_and_counts_overruns(monkeypatch: pytest.MonkeyPatch) -> None:
    curve = Curve(x=(0.0, 1.0), y=(0.0, 50.0))
    flat = Curve(x=(0.0, 1.0), y=(0.0, 0.0))
    profile = Profile(
        kind="k", model="m", source="test", prefill_ms_per_layer=flat, decode_ms_per_layer=curve,
        kv_capacity_layer_tokens=(1,), prefill_max_requests=(1,), decode_max_requests=(1,),
    )  # fmt: skip
    clock = Clock()
    monkeypatch.setattr(pacing, "time", clock)
    pacer = Pacer(profile)
    began = pacer.begin(clock.now_s)
    ended = pacer.finish(began, [SegmentLoad(2, 0, 1), SegmentLoad(1, 0, 2)])  # 2 x 50 ms + 1 x 100 ms
    assert ended == pytest.approx(7.2)
    assert clock.now_s == pytest.approx(7.2) and pacer.overruns == 0
    # Rows that were there before: the next step starts when the last was due, however late the loop comes round.
    clock.sleep(0.04)
    pacer.finish(pacer.begin(7.1), [SegmentLoad(2, 0, 1)])
    assert clock.now_s == pytest.approx(7.3)
    # Rows that came later: it starts when they were due. A machine that is very late cannot make up for it.
    clock.sleep(0.04)
    assert pacer.begin(7.32) == pytest.approx(7.32) and pacer.begin(7.0) == pytest.approx(7.3)
    clock.sleep(0.06)
    assert pacer.begin(7.32) == clock.now_s
    began = pacer.begin(clock.now_s)
    clock.sleep(0.15)
    pacer.finish(began, [SegmentLoad(2, 0, 1)])
    assert (pacer.steps, pacer.overruns) == (3, 1)
    assert pacer.overrun_s == pytest.approx(0.05)
    assert pacer.busy_s == pytest.approx(0.2 + 0.1 + 0.15)


def run_with_policy(policy: str, code: str) -> str:
    """What `code` prints in a process of its own under that policy; the test is skipped where it is not allowed."""
    begin = f"import os, sys\ntry: {policy}\nexcept PermissionError: sys.exit('not allowed')\n"
    done = subprocess.run([sys.executable, "-c", begin + code], capture_output=True, text=True, check=False)
    if done.stderr.strip() == "not allowed":
        pytest.skip("this user may not choose a real-time policy")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="this system has no such policies")
@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(10))", "10 9 10"),
        ("os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(3))", "3 2 3"),
        ("os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))", "1 1 1"),  # nothing is below the lowest
        ("os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))", "0 0 0"),
    ],
)
def test_computing_is_behind_messages_under_a_real_time_policy(policy: str, expected: str) -> None:
    code = (
        "from helix_kit.runtime.worker.pacing import behind_messages\n"
        "def now(): return os.sched_getparam(0).sched_priority\n"
        "before = now()\n"
        "try:\n"
        "    with behind_messages():\n"
        "        inside = now()\n"
        "        raise KeyError\n"
        "except KeyError: print(before, inside, now())\n"
    )
    assert run_with_policy(policy, code) == expected
