"""Rows leave a device by a stream of their own. A simulated device runs its streams in any order that events allow."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator

import pytest

torch = pytest.importorskip("torch")

from helix_kit.runtime.worker.row_copies import RowCopies  # noqa: E402


class Event:
    """Reached when the stream that recorded it has come so far."""

    def __init__(self) -> None:
        self.reached = True  # an event that was never recorded

    def record(self, stream: Stream) -> None:
        self.reached = False
        stream.give(lambda: setattr(self, "reached", True))


class Stream:
    """Work in order. A stream that waits for an event runs nothing behind that until it is reached."""

    def __init__(self, device: object = None) -> None:
        self.work: list[tuple[Event | None, Callable[[], object]]] = []

    def give(self, call: Callable[[], object]) -> None:
        self.work.append((None, call))

    def wait_event(self, event: Event) -> None:
        self.work.append((event, lambda: None))

    def can_go_on(self) -> bool:
        return bool(self.work) and (self.work[0][0] is None or self.work[0][0].reached)


class Cuda:
    """A device with a stream of steps, and what `RowCopies` uses of `torch.cuda`."""

    Event, Stream = Event, Stream

    def __init__(self) -> None:
        self.streams = [Stream()]
        self.current = self.streams[0]
        self.Stream = self._new_stream  # type: ignore[misc]

    def _new_stream(self, device: object) -> Stream:
        self.streams.append(Stream())
        return self.streams[-1]

    def current_stream(self, device: object) -> Stream:
        return self.current

    @contextlib.contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    def run_until(self, event: Event, order: random.Random) -> None:
        while not event.reached:
            order.choice([stream for stream in self.streams if stream.can_go_on()]).work.pop(0)[1]()


class Rows:
    """Rows on the simulated device: operations are given to the current stream, and happen when it comes to them."""

    def __init__(self, cuda: Cuda, values: list[int] | None = None) -> None:
        self.cuda, self.values = cuda, values
        self.shape, self.dtype = (3,), torch.float32
        self.readers: list[Stream] = []

    def clone(self, memory_format: object) -> Rows:
        copy = Rows(self.cuda)
        self.cuda.current.give(lambda: setattr(copy, "values", list(self.values or [])))
        return copy

    def write(self, values: list[int]) -> None:
        self.cuda.current.give(lambda: setattr(self, "values", values))

    def record_stream(self, stream: Stream) -> None:
        self.readers.append(stream)


class Pinned:
    def __init__(self, cuda: Cuda) -> None:
        self.cuda, self.values = cuda, None

    def copy_(self, rows: Rows, non_blocking: bool) -> Pinned:
        assert non_blocking
        self.source = rows
        self.cuda.current.give(lambda: setattr(self, "values", list(rows.values or [])))
        return self


@pytest.mark.parametrize("seed", range(40))
def test_rows_are_those_of_their_step_in_whatever_order_the_streams_run(seed: int, monkeypatch) -> None:
    """Steps write the same buffer, one behind the other, and nothing waits for a copy but the host."""
    cuda, order = Cuda(), random.Random(seed)
    monkeypatch.setattr(torch, "empty", lambda shape, dtype, pin_memory: Pinned(cuda))
    copies, buffer = RowCopies(torch.device("cuda"), cuda), Rows(cuda)
    started = []
    for step in range(4):
        buffer.write([step, step, step])
        started.append((copies.start(buffer), copies.start(Rows(cuda, [10 + step])), copies.mark()))
        if step >= 2:  # as a worker does: the results of a step are taken while the next one runs
            first, second, copied = started[step - 1]
            cuda.run_until(copied, order)
            assert first.values == [step - 1] * 3 and second.values == [9 + step]
    first, _, copied = started[-1]
    cuda.run_until(copied, order)
    assert first.values == [3, 3, 3]


def test_a_copy_takes_a_turn_of_its_own_and_its_memory_is_not_given_away(monkeypatch) -> None:
    cuda = Cuda()
    monkeypatch.setattr(torch, "empty", lambda shape, dtype, pin_memory: Pinned(cuda))
    copies = RowCopies(torch.device("cuda"), cuda)
    steps, own = cuda.streams
    buffer = Rows(cuda, [1, 2, 3])
    first, copied, second = copies.start(buffer), copies.mark(), copies.start(buffer)
    assert first is not second and first.source is not buffer
    # On the stream of the steps: two copies on the device, two events. The next step waits for nothing.
    assert len(steps.work) == 4 and all(event is None for event, _ in steps.work)
    assert first.source.readers == [own], "torch must not give the rows' memory away before the copy has read it"
    while own.can_go_on():  # the copies cannot begin: their steps are not over
        own.work.pop(0)
    assert first.values is None and not copied.reached
