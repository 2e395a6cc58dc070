"""The flow between bars as curves: as wide as their share of the flow, stacked where several meet an end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from helix_kit.cluster import COORDINATOR
from helix_kit.plots.lanes import Bar, Metrics
from helix_kit.plots.machines import Stream
from helix_kit.plots.scene import Curve, Point

THINNEST = 0.9


def ribbon_width(flow: float, total: float, bar_height: float) -> float:
    """Pixels: the whole flow is three quarters of a bar high, so a machine's ribbons never overflow its bar."""
    return max(THINNEST, 0.75 * bar_height * flow / total) if total > 0 else THINNEST


def route(
    streams: Sequence[Stream],
    bars: Mapping[str, Bar],
    metrics: Metrics,
    hubs: tuple[float, float],
    total: float,
) -> list[tuple[Stream, Curve, Point | None]]:
    """Each stream's curve, and the point where it enters a bar mid-way (None: at its start).

    `hubs` are the right edge of the coordinator on the left and the left edge of that on the right.
    """
    widths = {s: ribbon_width(s.flow, total, metrics.bar_height) for s in streams}
    out_offset = _stacked(streams, bars, widths, by_source=True)
    in_offset = _stacked(streams, bars, widths, by_source=False)
    drawn = []
    for stream in streams:
        colour = "cut" if stream.in_cut else "far" if stream.crosses_regions else "ribbon"
        if stream.source == COORDINATOR:
            end = (bars[stream.target].x, bars[stream.target].middle + in_offset[stream])
            begin = (hubs[0], end[1])
        elif stream.target == COORDINATOR:
            source = bars[stream.source]
            begin = (source.x + source.width, source.middle + out_offset[stream])
            end = (hubs[1], begin[1])
        else:
            source, target = bars[stream.source], bars[stream.target]
            begin = (source.x + source.width, source.middle + out_offset[stream])
            end = (target.x, target.middle + in_offset[stream])
        entry = None
        if stream.partial:
            below = begin[1] > bars[stream.target].middle
            target = bars[stream.target]
            entry = (metrics.x(stream.layer) + in_offset[stream], target.y + (target.height if below else 0.0))
        points = _bend(begin, end if entry is None else entry, widths[stream], entry is not None)
        drawn.append((stream, Curve(points, colour, widths[stream]), entry))
    return drawn


def _bend(begin: Point, end: Point, width: float, from_side: bool) -> tuple[Point, Point, Point, Point]:
    """Control points: level at a bar's ends, upright where the curve enters a bar from above or below."""
    (x0, y0), (x1, y1) = begin, end
    # Thick ribbons need a wide bend, thin ones would only wave with it.
    reach = min(5 + width, max(abs(x1 - x0) * 0.5, 4 + 0.12 * abs(y1 - y0)))
    if from_side:
        return begin, (x0 + reach, y0), (x1, y0 + (y1 - y0) * 0.25), end
    return begin, (x0 + reach, y0), (x1 - reach, y1), end


def _stacked(
    streams: Sequence[Stream], bars: Mapping[str, Bar], widths: Mapping[Stream, float], *, by_source: bool
) -> dict[Stream, float]:
    """Offset of each stream from the middle of the end it shares with others, in the order of the far ends."""
    shared: dict[tuple[str, int], list[Stream]] = {}
    for stream in streams:
        # Entries mid-way share a place only with those at the same layer.
        at = (stream.source, 0) if by_source else (stream.target, stream.layer if stream.partial else -1)
        shared.setdefault(at, []).append(stream)
    offsets: dict[Stream, float] = {}
    for meeting in shared.values():
        meeting.sort(key=lambda s: (_far_y(s, bars, by_source), s.layer, s.source, s.target))
        top = -sum(widths[s] for s in meeting) / 2
        for stream in meeting:
            offsets[stream] = top + widths[stream] / 2
            top += widths[stream]
    return offsets


def _far_y(stream: Stream, bars: Mapping[str, Bar], by_source: bool) -> float:
    """y of the other end; the coordinator's ribbons are level, so there it is the bar's own."""
    near, far = (stream.source, stream.target) if by_source else (stream.target, stream.source)
    return bars[near if far == COORDINATOR else far].middle
