"""Progress of a simulation: a bar with the simulated time, or a callable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = bool | Callable[[float, float], None]
SHOW_EVERY_S = 0.1


@contextmanager
def watcher(progress: Progress, end_s: float) -> Iterator[Callable[[float], None]]:
    """A function to call with the simulated seconds."""
    if callable(progress):
        yield lambda now_s: progress(now_s, end_s)
        return
    if not progress:
        yield lambda now_s: None
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("simulated {task.completed:,.0f} of {task.total:,.0f} s"), BarColumn(), TimeElapsedColumn())
    with Bar(*columns) as bar:
        task = bar.add_task("", total=end_s)
        shown = 0.0

        def show(now_s: float) -> None:
            nonlocal shown
            if time.monotonic() - shown >= SHOW_EVERY_S:
                shown = time.monotonic()
                bar.update(task, completed=now_s)

        yield show
        bar.update(task, completed=end_s)
