"""What reports read of a simulation by the rules of an engine, ours or another one, whose requests may all wait."""

from __future__ import annotations

from collections.abc import Sequence

from helix_kit.simulator.log import RunLog
from helix_kit.workload.request import Request


class BacklogView:
    """Base of drivers that admit requests one after another; the published rules have a feed of their own."""

    requests: Sequence[Request]
    """The workload."""
    log: RunLog
    _is_offline: bool

    @property
    def all_admitted(self) -> bool:
        """Whether every request of the workload was admitted or rejected, so that none waits."""
        raise NotImplementedError

    @property
    def ran_dry_s(self) -> float | None:
        """Offline: when the last request was admitted, since none waits from then on; None while some wait."""
        is_dry = self._is_offline and self.all_admitted
        return max(self.log.started_s.values(), default=0.0) if is_dry else None

    def arrived_s(self, at: int) -> float:
        """When the request arrived; offline, when it was admitted, since its wait before is of no interest."""
        return self.log.started_s.get(at, 0.0) if self._is_offline else self.requests[at].arrival_s

    def generated(self, tokens: int) -> int:
        """Every token that came back counts, the first included."""
        return tokens
