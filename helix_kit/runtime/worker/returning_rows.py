"""The rows that come back to a worker soon: its next step waits a moment for them.

Each step reads all weights of its layers, however few rows it has. Two cases are worth a wait:

- A worker is the only stage of its requests, and the coordinator sends each token straight back. Without a wait the
  requests fall into two halves. Each half computes while the tokens of the other are under way.
- All stages of a pipeline share one GPU, or one processor. While the rows are at another stage, this worker leaves the
  GPU to it. If it computed other rows instead, each stage would read its weights once for each part of the requests.
  Two workers on one processor reach 0.94 of the tokens/s of one worker with a wait and 0.57 without (SmolLM2-135M,
  8 requests, AMD EPYC).
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from helix_kit.runtime.worker.step import StepEntry

LINGER_SHARE = 0.05
"""Share of the last step's time for which the next step waits for rows that the coordinator sends straight back."""
MAX_LINGER_S = 0.01
LAP_SHARE = 2.0
"""Share of the time that the other stages on the GPU are expected to take for which the next step waits."""
MAX_LAP_S = 1.0


class ReturningRows:
    """The requests whose rows are awaited, and until when.

    Parameters
    ----------
    num_layers
        Layers of the worker.
    other_layers
        Layers of the model that the worker does not hold.
    on_device
        Names of the workers on its GPU or processor, its own included.
    """

    def __init__(self, num_layers: int, other_layers: int, on_device: Iterable[str]) -> None:
        self._others_share = other_layers / num_layers
        self._on_device = frozenset(on_device)
        self._requests: set[int] = set()
        self._until_s = 0.0

    def forget(self, request: int) -> None:
        """Await no rows of a request: they are there, or the request has ended."""
        self._requests.discard(request)

    def wait_s(self) -> float:
        """Seconds that the next step waits at most from now; 0 if nothing is awaited any more."""
        if not self._requests:
            return 0.0
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            self._requests.clear()
        return max(0.0, left_s)

    def await_after(self, entries: Iterable[StepEntry], step_s: float) -> None:
        """Await the next rows of a step's requests where that is worth it; the step took `step_s`."""
        now_s = time.monotonic()
        for entry in entries:
            request = entry.request
            if not (request.takes_token_ids and entry.item.wants_token):
                continue
            if request.next_stage is None:
                if not request.decode_until:
                    self._await(request.id, now_s + min(MAX_LINGER_S, LINGER_SHARE * step_s))
            elif entry.next_position < request.decode_until and self._on_device.issuperset(request.route):
                self._await(request.id, now_s + min(MAX_LAP_S, LAP_SHARE * self._others_share * step_s))

    def _await(self, request: int, until_s: float) -> None:
        self._requests.add(request)
        self._until_s = max(self._until_s, until_s)
