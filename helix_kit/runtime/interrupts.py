"""SIGTERM as an interrupt: what docker, systemd and batch systems send ends a program as Ctrl-C does."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt in the main thread when SIGTERM arrives, as Ctrl-C does.

    Python lets the main thread alone set signal handlers; in another one this changes nothing. A handler that the
    program has set itself is kept.
    """
    is_free = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) in (
        signal.SIG_DFL,
        _interrupt,
    )
    if not is_free:
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
