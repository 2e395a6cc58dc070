"""Step times from curves, and how a node's time is divided."""

from __future__ import annotations

import numpy as np
import pytest

from helix_kit.simulator.node import DECODE, PREFILL, account_time, curve_at, end_step
from helix_kit.simulator.setup import new_clock
from helix_kit.simulator.state import BATCH, BUSY, NODE, STARVED, Curves, filled

# Two kinds of node: (prefill, decode) of the first end to end, then of the second.
POINTS = [
    ([1.0, 10.0, 100.0], [0.5, 1.0, 8.0]),
    ([1.0, 4.0], [0.2, 0.8]),
    ([1.0, 2.0, 3.0, 50.0], [1.0, 1.0, 4.0, 5.0]),
    ([1.0, 64.0], [0.1, 0.7]),
]


@pytest.fixture
def curves():
    lengths = [len(x) for x, _ in POINTS]
    first = np.cumsum([0, *lengths[:-1]])
    return Curves(
        np.concatenate([x for x, _ in POINTS]),
        np.concatenate([y for _, y in POINTS]),
        first.reshape(2, 2),
        np.array(lengths).reshape(2, 2),
    )


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("phase", [PREFILL, DECODE])
def test_between_points_a_curve_is_linear(curves, kind, phase):
    x, y = POINTS[2 * kind + phase]
    for at in np.linspace(x[0], x[-1], 25):
        assert curve_at(curves, kind, phase, at) == pytest.approx(np.interp(at, x, y), rel=1e-12)


def test_past_its_end_the_last_slope_goes_on(curves):
    assert curve_at(curves, 0, PREFILL, 190.0) == pytest.approx(15.0)  # 8 + 90 x 7 / 90
    assert curve_at(curves, 1, PREFILL, 97.0) == pytest.approx(6.0)  # 5 + 47 x 1 / 47


def test_time_is_divided_into_busy_blocked_and_starved():
    """Starved until 2 s, busy until 5, blocked until 9, busy until 12; measured from 3 to 11 s."""
    node, clock = filled(NODE, 1), new_clock()
    node["state"] = STARVED
    clock["window_start"], clock["window_end"] = 3.0, 11.0
    for now, running, waiting_to_leave in [(2.0, 1, 0), (5.0, 0, 4), (9.0, 1, 4), (12.0, 0, 0)]:
        clock["now"], node["running"], node["out_count"] = now, running, waiting_to_leave
        account_time(node[0], clock[0])
    assert node["busy_s"] == 2.0 + 2.0
    assert node["blocked_s"] == 4.0
    assert node["state"] == STARVED


@pytest.mark.parametrize(("now", "counts"), [(1.0, False), (4.0, True), (12.0, False)])
def test_a_step_counts_if_it_ends_within_the_window(now, counts):
    node, clock, batches = filled(NODE, 1), new_clock(), np.zeros(3, dtype=BATCH)
    clock["window_start"], clock["window_end"], clock["now"], clock["record_batches"] = 3.0, 11.0, now, 1
    node["state"], node["running"], node["batch_start"] = BUSY, 1, 0.5
    node["batch_prefill"], node["batch_decodes"] = 100, 7
    end_step(node[0], 5, batches, clock[0])
    measured = (node["steps"][0], node["prefill_tokens"][0], node["decode_tokens"][0])
    assert measured == ((1, 100, 7) if counts else (0, 0, 0))
    assert batches[0].tolist() == (5, 0.5, now, 100, 7)
    assert clock["batches"] == 1 and node["running"] == 0
