"""Functions that other threads want the coordinator's thread to run, and a socket that wakes it up for them."""

from __future__ import annotations

import contextlib
import queue
import socket
from collections.abc import Callable
from typing import Any


class CommandQueue:
    """A queue of functions for one thread, which waits on `socket` among other sockets.

    `post` and `call` may be used from any thread. `drain_wakeups`, `run_all` and `close` are for the thread that runs
    the functions.
    """

    def __init__(self) -> None:
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.socket, self._sender = socket.socketpair()
        self.socket.setblocking(False)
        self._sender.setblocking(False)

    def post(self, command: Callable[[], None]) -> None:
        """Have `command` run soon; return at once."""
        self._commands.put(command)
        with contextlib.suppress(BlockingIOError, OSError):
            self._sender.send(b"!")

    def call(self, function: Callable[[], Any], timeout_s: float = 30.0) -> Any:
        """The result of `function`, run in the other thread; raises what it raises, `queue.Empty` after the timeout."""
        answer: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def reply() -> None:
            try:
                answer.put((function(), None))
            except BaseException as error:
                answer.put((None, error))

        self.post(reply)
        value, error = answer.get(timeout=timeout_s)
        if error is not None:
            raise error
        return value

    def drain_wakeups(self) -> None:
        """Read the bytes that have arrived at `socket`, so that the next poll waits for a new command."""
        with contextlib.suppress(BlockingIOError):
            self.socket.recv(4096)

    def run_all(self) -> None:
        """Run the commands in the queue, in order."""
        while not self._commands.empty():  # no other thread takes commands out
            self._commands.get_nowait()()

    def close(self) -> None:
        """Close the sockets. Commands may still be posted, and `run_all` still runs them."""
        self.socket.close()
        self._sender.close()
