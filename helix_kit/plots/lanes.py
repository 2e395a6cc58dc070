"""Where each bar goes: lanes by region and kind, each packed first-fit, with room for every label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from helix_kit.placement.problem import Problem
from helix_kit.plots.machines import Machine
from helix_kit.plots.scene import text_width


@dataclass(frozen=True, slots=True)
class Bar:
    """A machine with its rectangle (pixels) and its label."""

    machine: Machine
    kind_index: int
    x: float
    y: float
    width: float
    height: float
    label: str
    label_x: float
    label_inside: bool

    @property
    def middle(self) -> float:
        """y of the bar's centre line."""
        return self.y + self.height / 2


@dataclass(frozen=True, slots=True)
class Lanes:
    """All bars, and the headings beside them."""

    bars: tuple[Bar, ...]
    kinds: tuple[tuple[str, int, float], ...]
    """(heading, kind index, y of the first lane's centre)."""
    regions: tuple[tuple[str, float, float], ...]
    """(name, top, bottom) of each band."""
    bottom: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """Sizes in pixels."""

    layer_x0: float
    layer_width: float
    right: float
    """Right end of layer L."""
    bar_height: float
    label_size: float

    @property
    def inset(self) -> float:
        """Bars end this much before their last layer does, so that the flow between them shows."""
        return min(6.0, max(2.0, 0.3 * self.layer_width))

    @property
    def lane_pitch(self) -> float:
        """From one lane to the next."""
        return self.bar_height + 9

    def x(self, layer: float) -> float:
        """x of the boundary before `layer`."""
        return self.layer_x0 + layer * self.layer_width


def label_size(bar_height: float) -> float:
    """Font size of the labels of bars."""
    return 10.5 if bar_height > 20 else 9.5


def kind_order(problem: Problem) -> list[str]:
    """Kinds of machine, the most capable first."""

    def work(kind: str) -> float:
        return max((k * t for k, t in enumerate(problem.throughput_by_kind[kind], 1)), default=0.0)

    return sorted(problem.cluster.kind_counts, key=lambda kind: (-work(kind), kind))


def place(
    machines: Sequence[Machine], kinds: Sequence[str], regions: Sequence[str], metrics: Metrics, top: float
) -> Lanes:
    """Bars from `top` down: regions in order, in each the kinds in order, in each lanes filled first-fit."""
    bars: list[Bar] = []
    headings: list[tuple[str, int, float]] = []
    bands: list[tuple[str, float, float]] = []
    y = top
    banded = len({m.region for m in machines}) > 1
    for region in regions:
        here = [m for m in machines if m.region == region]
        if not here:
            continue
        band_top = y
        y += 24 if banded else 6
        for kind_index, kind in enumerate(kinds):
            mine = sorted((m for m in here if m.kind == kind), key=lambda m: (m.start, m.end, m.id))
            if not mine:
                continue
            count = sum(len(m.members) for m in mine)
            headings.append((f"{kind} ×{count}" if count > 1 else kind, kind_index, y + metrics.bar_height / 2))
            lanes = _first_fit(mine, kind_index, metrics)
            for lane, row in enumerate(lanes):
                bars += [_at(bar, y + lane * metrics.lane_pitch) for bar in row]
            y += len(lanes) * metrics.lane_pitch + 5
        bands.append((region, band_top, y))
        y += 8 if banded else 0
    return Lanes(tuple(bars), tuple(headings), tuple(bands), y)


def _at(bar: Bar, y: float) -> Bar:
    return Bar(bar.machine, bar.kind_index, bar.x, y, bar.width, bar.height, bar.label, bar.label_x, bar.label_inside)


def _first_fit(machines: Sequence[Machine], kind_index: int, metrics: Metrics) -> list[list[Bar]]:
    def fits(label: str, width: float) -> bool:
        return text_width(label, metrics.label_size) + 2 <= width

    widths = [metrics.layer_width * (m.end - m.start) - 2 * metrics.inset for m in machines]
    # One form of label for the whole kind, the longest that fits in every bar: a mixture of "T4-3" and "#3"
    # reads as two sorts of things.
    forms = [[m.label for m in machines], [m.short_label for m in machines], [m.number for m in machines]]
    labels = next((form for form in forms if all(map(fits, form, widths))), forms[1])
    lanes: list[list[Bar]] = []
    ends: list[float] = []
    for machine, width, label in zip(machines, widths, labels, strict=True):
        x, taken = metrics.x(machine.start) + metrics.inset, text_width(label, metrics.label_size)
        inside = fits(label, width)
        left, right = x - metrics.inset, x + width + metrics.inset
        if inside:
            label_x = x + width / 2
        elif right + taken + 2 <= metrics.right:
            label_x = x + width + 3
            right = label_x + taken
        else:
            label_x = x - 3 - taken
            left = label_x
        bar = Bar(machine, kind_index, x, 0.0, width, metrics.bar_height, label, label_x, inside)
        lane = next((i for i, end in enumerate(ends) if end <= left + 0.01), None)
        if lane is None:
            lanes.append([])
            ends.append(0.0)
            lane = len(lanes) - 1
        lanes[lane].append(bar)
        ends[lane] = right
    return lanes
