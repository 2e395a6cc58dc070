"""Commands from other threads to one that waits for messages: they are left in a queue, and a bell wakes it."""

from __future__ import annotations

import contextlib
import queue
import socket
from collections.abc import Callable
from typing import Any


class Bell:
    """A queue of commands whose `fileno` can be polled."""

    def __init__(self) -> None:
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.socket, self._rope = socket.socketpair()
        self.socket.setblocking(False)
        self._rope.setblocking(False)

    def do(self, command: Callable[[], None]) -> None:
        """Have `command` run by who answers the bell, soon."""
        self._commands.put(command)
        with contextlib.suppress(BlockingIOError, OSError):
            self._rope.send(b"!")

    def ask(self, question: Callable[[], Any], timeout_s: float = 30.0) -> Any:
        """The result of `question`, evaluated by who answers the bell; raises what it raises."""
        answer: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def reply() -> None:
            try:
                answer.put((question(), None))
            except BaseException as error:
                answer.put((None, error))

        self.do(reply)
        value, error = answer.get(timeout=timeout_s)
        if error is not None:
            raise error
        return value

    def quiet(self) -> None:
        """Take the rings in, so that polling waits for the next one."""
        with contextlib.suppress(BlockingIOError):
            self.socket.recv(4096)

    def take(self) -> None:
        """Run what was left, in order."""
        while not self._commands.empty():  # nobody else takes from it
            self._commands.get_nowait()()

    def close(self) -> None:
        """Ring no more; commands may still be left and taken."""
        self.socket.close()
        self._rope.close()
