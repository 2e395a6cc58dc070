"""Step times of a node from its curves, and the account of its time, for the rules of `layerwise` and `ranged`."""

# mypy: allow-untyped-defs, allow-untyped-calls
# Compiled code: numba infers the types.
from __future__ import annotations

from helix_kit.simulator.compiled import compiled, inlined
from helix_kit.simulator.state import BLOCKED, BUSY, STARVED

PREFILL, DECODE = 0, 1
"""Phases of a node's curves."""
TO_GPU_BYTES_PER_S, TO_HOST_BYTES_PER_S = 4e9, 5e9
"""Speeds at which activations are copied between host and GPU (published rule)."""


@compiled
def curve_at(curves, kind, phase, at):
    """Value at `at` of a piecewise linear curve, by kind of node and phase; past its end the last slope goes on."""
    x, y = curves.x, curves.y
    left = curves.first[kind, phase]
    right = left + curves.points[kind, phase] - 1
    while right - left > 1:
        middle = (left + right) >> 1
        if x[middle] <= at:
            left = middle
        else:
            right = middle
    if at == x[left]:
        return y[left]
    if at == x[right]:
        return y[right]
    return y[left] + (y[right] - y[left]) * (at - x[left]) / (x[right] - x[left])


@inlined
def account_time(node, clock):
    """Add the time since the last call to the node's last state, within the window; set its new state."""
    begin = max(node.since, clock.window_start)
    end = min(clock.now, clock.window_end)
    if end > begin:
        if node.state == BUSY:
            node.busy_s += end - begin
        elif node.state == BLOCKED:
            node.blocked_s += end - begin
    node.since = clock.now
    node.state = BUSY if node.running else (BLOCKED if node.out_count > 0 else STARVED)


@inlined
def end_step(node, here, batches, clock):
    """End the running step of node `here`: its time, its steps and tokens within the window, and a row in `batches`."""
    node.running = 0
    account_time(node, clock)
    if clock.window_start <= clock.now <= clock.window_end:
        node.steps += 1
        node.prefill_tokens += node.batch_prefill
        node.decode_tokens += node.batch_decodes
    if clock.record_batches:
        batch = batches[clock.batches]
        batch.node, batch.start, batch.end = here, node.batch_start, clock.now
        batch.prefill, batch.decodes = node.batch_prefill, node.batch_decodes
        clock.batches += 1
