"""Work in a thread of its own, so that an editor stays usable while it solves or simulates."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Background:
    """Run one piece of work at a time in a thread. Newer work stops earlier work, and its result is dropped."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._turn = 0

    @property
    def running(self) -> bool:
        """Whether a thread is at work."""
        return self._thread is not None and self._thread.is_alive()

    def start(
        self,
        work: Callable[[threading.Event], Any],
        on_done: Callable[[Any], None],
        on_failed: Callable[[Exception], None],
    ) -> None:
        """Run `work(stop)`, then call `on_done` with its result or `on_failed` with its error."""
        self.stop.set()
        self.stop = stop = threading.Event()
        self._turn += 1
        turn = self._turn

        def run() -> None:
            try:
                result = work(stop)
            except Exception as error:  # The reader of a notebook has no terminal: the editor shows the error.
                if turn == self._turn:
                    on_failed(error)
                return
            if turn == self._turn:
                on_done(result)

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Stop the running work and drop its result."""
        self.stop.set()
        self._turn += 1

    def wait(self, timeout_s: float = 60.0) -> bool:
        """Wait until the work has ended. Return False when it runs longer than `timeout_s`."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return not self.running
