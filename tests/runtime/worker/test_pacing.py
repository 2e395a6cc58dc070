"""Steps are padded to the profile's time, and late ones are counted."""

from __future__ import annotations

import math
import time

import pytest

from helix_kit.profiles.profile import Curve, Profile
from helix_kit.runtime.worker.pacing import Pacer, SegmentLoad


def test_pacer_pads_and_counts_overruns() -> None:
    curve = Curve(x=(0.0, 1.0), y=(0.0, 50.0))
    flat = Curve(x=(0.0, 1.0), y=(0.0, 0.0))
    profile = Profile(
        kind="k", model="m", source="test", prefill_ms_per_layer=flat, decode_ms_per_layer=curve,
        kv_capacity_layer_tokens=(1,), prefill_max_requests=(1,), decode_max_requests=(1,),
    )  # fmt: skip
    pacer = Pacer(profile)
    start = time.monotonic()
    began = pacer.begin(False)
    pacer.finish(began, [SegmentLoad(2, 0, 1), SegmentLoad(1, 0, 2)])  # 2 x 50 ms + 1 x 100 ms
    assert 0.2 <= time.monotonic() - start < 0.4 and pacer.overruns == 0
    # The next step starts when the last was due, however late the loop comes round.
    time.sleep(0.05)
    pacer.finish(pacer.begin(True), [SegmentLoad(2, 0, 1)])
    assert 0.3 <= time.monotonic() - start < 0.5
    began = pacer.begin(False)
    time.sleep(0.15)
    pacer.finish(began, [SegmentLoad(2, 0, 1)])
    assert (pacer.steps, pacer.overruns) == (3, 1)
    assert pacer.overrun_s == pytest.approx(0.05, abs=0.05)
    assert math.isclose(pacer.busy_s, 0.2 + 0.1 + 0.15, abs_tol=0.05)
