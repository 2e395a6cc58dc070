"""Functions that one thread has another one run."""

from __future__ import annotations

import queue
import select
import threading
from collections.abc import Iterator

import pytest

from helix_kit.runtime.coordinator.command_queue import CommandQueue


@pytest.fixture
def commands() -> Iterator[CommandQueue]:
    made = CommandQueue()
    yield made
    made.close()


def is_readable(commands: CommandQueue) -> bool:
    return bool(select.select([commands.socket], [], [], 0)[0])


def test_commands_run_in_order_when_the_other_thread_asks(commands: CommandQueue) -> None:
    done: list[int] = []
    for number in range(3):
        commands.post(lambda number=number: done.append(number))
    assert done == [] and is_readable(commands)
    commands.drain_wakeups()
    assert not is_readable(commands)
    commands.run_all()
    assert done == [0, 1, 2]


def test_a_command_may_post_another(commands: CommandQueue) -> None:
    done: list[str] = []
    commands.post(lambda: commands.post(lambda: done.append("second")))
    commands.run_all()
    assert done == ["second"]


def test_call_returns_the_result_of_the_other_thread(commands: CommandQueue) -> None:
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            select.select([commands.socket], [], [], 0.05)
            commands.drain_wakeups()
            commands.run_all()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert commands.call(threading.get_ident) == thread.ident
        with pytest.raises(ZeroDivisionError):
            commands.call(lambda: 1 / 0)
    finally:
        stop.set()
        thread.join()
    with pytest.raises(queue.Empty):
        commands.call(lambda: None, timeout_s=0.01)


def test_many_wakeups_do_not_block(commands: CommandQueue) -> None:
    """The socket takes a limited number of bytes; further ones are not needed, since it is readable already."""
    done: list[int] = []
    for number in range(100_000):
        commands.post(lambda number=number: done.append(number))
    commands.run_all()
    assert len(done) == 100_000


def test_commands_posted_after_the_end_can_still_be_run() -> None:
    commands, done = CommandQueue(), []
    commands.close()
    commands.post(lambda: done.append(1))
    commands.run_all()
    assert done == [1]
