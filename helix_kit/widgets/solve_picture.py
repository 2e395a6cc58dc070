"""Value and bound over the seconds of a solve, as a picture that grows while the solve goes on."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence

import ipywidgets as W

from helix_kit.plots.formatting import format_number
from helix_kit.plots.theme import CUT_COLOUR, KIND_COLOURS

WIDTH, HEIGHT = 640.0, 150.0
LEFT, RIGHT, TOP, BOTTOM = 8.0, 190.0, 10.0, 22.0
TICK_S = 0.5
Point = tuple[float, float, float]
"""Seconds, best value and bound, both in tokens/s."""


class SolvePicture(W.HTML):
    """The picture of one solve after another.

    Examples
    --------
    >>> picture = SolvePicture()
    >>> picture.begin()
    >>> picture.add(0.5, 100.0, 300.0)
    >>> picture.end(1.0)
    >>> "value 100" in picture.value, "bound 300" in picture.value
    (True, True)
    """

    def __init__(self) -> None:
        super().__init__()
        self.points: list[Point] = []
        self._started = 0.0
        self._over = threading.Event()
        self._over.set()

    def begin(self) -> None:
        """Begin an empty picture. From now on it is drawn twice a second, until `end`."""
        self._over.set()
        self.points = []
        self._started = time.perf_counter()
        self._over = over = threading.Event()
        self.value = ""

        def tick() -> None:
            while not over.wait(TICK_S):
                self._draw(time.perf_counter() - self._started)

        threading.Thread(target=tick, daemon=True).start()

    def add(self, seconds: float, value: float, bound: float) -> None:
        """Add what a progress report says."""
        self.points.append((seconds, value, bound))

    def end(self, seconds: float | None = None) -> None:
        """Draw the picture for the last time; `seconds` is the time of the whole solve."""
        self._over.set()
        self._draw(time.perf_counter() - self._started if seconds is None else seconds)

    def _draw(self, now_s: float) -> None:
        points = list(self.points)
        if points:
            self.value = drawing(points, max(now_s, points[-1][0]))


def drawing(points: Sequence[Point], until_s: float) -> str:
    """The SVG text of a solve until `until_s`: the value as a line, the bound dashed, with their last numbers."""
    _, value, bound = points[-1]
    finite = [b for _, _, b in points if math.isfinite(b)]
    # The first bounds may be many times the value. Then they leave the picture at its top.
    highest = max([value * 1.05, *([min(max(finite), 2 * value if value > 0 else max(finite))] if finite else [])])
    if highest <= 0:
        return ""
    last_s = max(until_s, 1e-3)

    def place(seconds: float, tokens_per_s: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * seconds / last_s
        y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(1.0, tokens_per_s / highest))
        return x, y

    def steps(index: int) -> str:
        known = [(p[0], p[index]) for p in points if math.isfinite(p[index])]
        path: list[str] = []
        for at, (seconds, number) in enumerate(known):
            x, y = place(seconds, number)
            path.append(f"M{x:.1f},{y:.1f}" if at == 0 else f"H{x:.1f}V{y:.1f}")
        return "".join(path) + (f"H{place(last_s, 0.0)[0]:.1f}" if path else "")

    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
    lines = [
        f'<line x1="{LEFT}" x2="{right}" y1="{floor}" y2="{floor}" stroke="#8888"/>',
        f'<path d="{steps(2)}" fill="none" stroke="{CUT_COLOUR}" stroke-width="1.6" stroke-dasharray="5 3"/>',
        f'<path d="{steps(1)}" fill="none" stroke="{KIND_COLOURS[0]}" stroke-width="2"/>',
        f'<text x="{right}" y="{HEIGHT - 6}" text-anchor="end">{last_s:.1f} s</text>',
    ]
    value_y, bound_y = place(0.0, value)[1] + 4, place(0.0, bound)[1] + 4
    if math.isfinite(bound):
        # The two numbers keep a line's distance, also where the lines meet.
        bound_y, value_y = max(TOP, min(bound_y, value_y - 14)), max(value_y, TOP + 14)
        lines.append(
            f'<text x="{right + 6}" y="{bound_y:.1f}" fill="{CUT_COLOUR}">bound {format_number(bound)} tokens/s</text>'
        )
    lines.append(
        f'<text x="{right + 6}" y="{value_y:.1f}" fill="{KIND_COLOURS[0]}">value {format_number(value)} tokens/s</text>'
    )
    return (
        f'<svg class="hk-solve" role="img" aria-label="value and bound over {last_s:.1f} s" '
        f'viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" style="max-width:{WIDTH:.0f}px;width:100%;font-size:12px" '
        f'fill="var(--jp-ui-font-color1, #333)">{"".join(lines)}</svg>'
    )
