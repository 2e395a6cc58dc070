"""Measure bandwidth and latency between two processes, over the runtime's own sockets.

>>> from helix_kit.runtime.transport.link_measurement import measure_link
>>> found = measure_link()                                                    # doctest: +SKIP
>>> cluster = cluster.model_copy(update={"network": found.network()})         # doctest: +SKIP

The other process answers every message with a small one. The latency is half a round trip of one row. The bandwidth
follows from the time that a large message takes beyond that. Both are of this machine's loopback, which the workers of
one machine use.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import zmq

from helix_kit.cluster import Link, Network
from helix_kit.errors import HelixKitError, InputError
from helix_kit.runtime.transport.messages import FreeMessage, RequestEpoch, RunMessage, StopMessage, WorkItem
from helix_kit.runtime.transport.sockets import Inbox, Outbox

ROW_VALUES = 1024
LARGE_ROWS = 1024
ANSWER_S = 30.0


@dataclass(frozen=True, slots=True)
class LinkMeasurement:
    """One-way latency and bandwidth of a link, each as (10th percentile, median, 90th percentile)."""

    latency_ms: tuple[float, float, float]
    bandwidth_gbps: tuple[float, float, float]
    """10^9 bit/s."""
    repeats: int

    def network(self) -> Network:
        """A network whose links within the region have the measured medians."""
        return Network(within_region=Link(bandwidth_gbps=self.bandwidth_gbps[1], latency_ms=self.latency_ms[1]))


def measure_link(*, repeats: int = 50, progress: Callable[[str, float], None] | None = None) -> LinkMeasurement:
    """Time messages between this process and another one.

    Parameters
    ----------
    repeats
        Messages of each size.
    progress
        Called with the name of the current measurement and the share that is done, 0 to 1.

    Returns
    -------
    LinkMeasurement
        Percentiles of latency and bandwidth.

    Raises
    ------
    InputError
        `repeats` is less than 1.
    HelixKitError
        The other process does not answer.

    Examples
    --------
    >>> measure_link(repeats=20).latency_ms[1] < 10                               # doctest: +SKIP
    True
    """
    if repeats < 1:
        raise InputError("expected at least 1", field="repeats", value=repeats)
    context, key = zmq.Context(), b"k" * 16
    inbox, outbox = Inbox(context, key), Outbox(context, key)
    command = [sys.executable, "-m", "helix_kit.runtime.transport.link_measurement", inbox.endpoint, key.hex()]
    peer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert peer.stdout is not None
        endpoint = peer.stdout.readline().strip()
        if not endpoint:
            raise HelixKitError("the other end of the link could not be started (see its message above)")

        def round_trip(rows: int) -> float:
            tensor = memoryview(bytes(rows * ROW_VALUES * 4))
            began = time.perf_counter()
            item = WorkItem(request=1, epoch=0, position=0, tokens=rows, wants_token=False)
            outbox.send(endpoint, RunMessage([item], "float32", (rows, ROW_VALUES), tensor))
            if not inbox.receive(ANSWER_S):
                raise HelixKitError(f"the other end of the link did not answer within {ANSWER_S:g} s")
            return time.perf_counter() - began

        trips: dict[int, list[float]] = {}
        for done, rows in enumerate((1, LARGE_ROWS)):
            if progress is not None:
                progress(f"link, {rows * ROW_VALUES * 4 >> 10} KiB", done / 2)
            round_trip(rows)
            trips[rows] = [round_trip(rows) for _ in range(repeats)]
        if progress is not None:
            progress("link", 1.0)
        outbox.send(endpoint, StopMessage())
        outbox.flush_and_close()
        peer.wait(ANSWER_S)
    finally:
        peer.kill()
        peer.wait()
        outbox.flush_and_close(0)
        inbox.close()
        context.term()
    small = np.array(trips[1])
    # The large message takes longer than a small one by the time of its additional bytes.
    beyond_s = np.maximum(np.array(trips[LARGE_ROWS]) - np.median(small), 1e-9)
    gbps = 8e-9 * (LARGE_ROWS - 1) * ROW_VALUES * 4 / beyond_s
    latency, bandwidth = (np.percentile(v, [10, 50, 90]).tolist() for v in (small / 2 * 1e3, gbps))
    return LinkMeasurement(tuple(latency), tuple(bandwidth), repeats)


def _echo(endpoint: str, key: bytes) -> None:
    """The other end: answer each message until told to stop."""
    context = zmq.Context()
    inbox, outbox = Inbox(context, key), Outbox(context, key)
    print(inbox.endpoint, flush=True)
    while messages := inbox.receive(ANSWER_S):  # nothing arrived: the measuring process has ended
        for message in messages:
            if isinstance(message, StopMessage):
                return
            outbox.send(endpoint, FreeMessage([RequestEpoch(1, 0)]))


if __name__ == "__main__":
    _echo(sys.argv[1], bytes.fromhex(sys.argv[2]))
