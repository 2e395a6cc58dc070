"""Waiting until an engine has nothing to do, and holds nothing."""

from __future__ import annotations

import time

from helix_kit.runtime import Engine, EngineStatus


def wait_until_idle(engine: Engine, timeout_s: float = 10.0) -> EngineStatus:
    """The status of the engine once no request is left, by reports of its workers that are younger than that.

    Fails when requests, promised pages or pages in use are left after `timeout_s`.
    """
    end = time.monotonic() + timeout_s
    while True:
        status = engine.status()
        if not (status.waiting or status.running or status.pages_promised):
            status = engine.status(fresh=True)
            if not any(worker.pages_used for worker in status.workers.values() if worker.state == "up"):
                return status
        assert time.monotonic() < end, f"requests or pages are left: {status}"
        time.sleep(0.02)
