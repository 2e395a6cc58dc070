"""The arrays of a ranged simulation that grow while it runs: chunks, messages, the heap of events, and the log.

Compiled code cannot make an array longer. It stops and says so, or the driver makes room before it calls.
"""

from __future__ import annotations

import numpy as np

from helix_kit.simulator.log import RunLog
from helix_kit.simulator.ranged.state import State
from helix_kit.simulator.setup import Setup, new_heap
from helix_kit.simulator.state import CHUNK, MESSAGE, StateOwner, pool


class GrowingState(StateOwner[State]):
    """Base of the ranged driver: the state, with room for whatever comes next."""

    setup: Setup
    log: RunLog
    clock: np.ndarray

    def new_pools(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Free chunks and messages, an empty heap and an empty queue of events."""
        clock = self.clock[0]
        chunks, messages = pool(CHUNK, 1 << 12), pool(MESSAGE, 1 << 10)
        clock["free_chunk"], clock["free_chunks"] = 0, len(chunks)
        clock["free_message"], clock["free_messages"] = 0, len(messages)
        clock["heap"] = clock["fifo"] = clock["stalled"] = 0
        return chunks, messages, *new_heap(1 << 10)

    def need_heap(self) -> None:
        """Make sure that all events fit that one call of compiled code may add."""
        needed = self.clock[0]["heap"] + 4 * len(self.setup.nodes) + len(self.state.messages)
        if needed >= len(self.state.heap):
            self.state = self.state._replace(heap=np.resize(self.state.heap, 2 * needed))

    def need_chunks(self, count: int) -> None:
        """Make sure that `count` chunks are free."""
        if self.clock[0]["free_chunks"] < count:
            chunks = self._extended(self.state.chunks, "free_chunk", "free_chunks", count)
            self.state = self.state._replace(chunks=chunks)

    def need_messages(self, count: int) -> None:
        """Make sure that `count` messages are free. Many requests may start before the simulation advances again."""
        if self.clock[0]["free_messages"] < count:
            messages = self._extended(self.state.messages, "free_message", "free_messages", count)
            self.state = self.state._replace(messages=messages)

    def _extended(self, records: np.ndarray, head: str, count: str, needed: int) -> np.ndarray:
        """The pool with at least `needed` more free records; `head` and `count` are its fields of the clock."""
        clock = self.clock[0]
        more = pool(records.dtype, max(needed, len(records)), first=len(records))
        more["next"][-1] = clock[head]
        clock[head] = len(records)
        clock[count] += len(more)
        return np.concatenate([records, more])

    def grow(self, chunks: int) -> None:
        """Make room for more tokens, batches, messages and `chunks`."""
        self.log.grow()
        more = self._extended(self.state.chunks, "free_chunk", "free_chunks", chunks)
        messages = self._extended(self.state.messages, "free_message", "free_messages", 4 * len(self.setup.links))
        self.state = self.state._replace(log=self.log.arrays, messages=messages, chunks=more)
