"""Search over layers for a placement whose nodes cover every layer with a target flow: the questions of bound B6.

The layers are walked from the first to the last. Where the nodes that go on do not carry the target, further nodes
start there. A search that ends without a placement proves that there is none, whole nodes, whole layers and their order
included. Three rules keep it small, and none of them loses a placement:

- A node is taken to carry what the best range around its own does (`widest_speeds`). So a shorter range is never
  slower. Of the placements that carry the target, the one with the fewest layers in all then needs each node in its
  first layer and in its last: without it the others there carry less than the target.
- What a layer still lacks costs at least the cheapest cover of the lack, at any prices of the nodes. A state is left
  when the layers to come cost more than the nodes that are left (`Prices`).
- A state (layer, nodes left, ends and T of the nodes that go on) is met once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from helix_kit.placement.bounds.knapsack import UNITS

STEP = 1 << 27
"""Fine units in one of the knapsack's."""
ONE = UNITS * STEP
"""The target in fine units. T is rounded up to them, 10^-12 of the target: exact sums, and never a wrong proof."""
ROUNDING = STEP >> 16
"""The knapsack rounds T up but for a last 10^-9 of a unit."""
TOLERANCE = 1e-7
"""By so much the prices of what is needed may be above those of the nodes, in layers."""
MAX_STATES = 400_000
"""States remembered at most (about 200 bytes each)."""
QUESTION_EXPANSIONS = 16
"""Expansions between two looks at the clock."""
Floats = NDArray[np.float64]
Active = tuple[tuple[int, int], ...]
"""(end, T in fine units) of each node that goes on, sorted."""


class Prices(NamedTuple):
    """A price of a node of each group and what covers cost at them."""

    of_node: Floats
    """Shape (groups,)."""
    of_layer: Floats
    """Weight of each layer, shape (L,)."""
    cover: Floats
    """cover[f]: least price of nodes that carry f or more in a layer of weight 1, f = 0..UNITS."""


class Held(NamedTuple):
    """A node of a group with the layers [start, end)."""

    group: int
    start: int
    end: int


class Answer(NamedTuple):
    """What a search says of its target."""

    refuted: bool
    """Whether no placement covers every layer with the target."""
    found: tuple[Held, ...] | None
    """A placement that does."""
    expansions: int
    """States looked at."""


@dataclass(frozen=True)
class _Trail:
    """The nodes placed so far, the last one first."""

    held: Held
    before: _Trail | None

    def all(self) -> tuple[Held, ...]:
        trail: _Trail | None = self
        nodes = []
        while trail is not None:
            nodes.append(trail.held)
            trail = trail.before
        return tuple(reversed(nodes))


class _State(NamedTuple):
    """A layer that lacks something, and what is placed and left there."""

    layer: int
    left: tuple[int, ...]
    active: Active
    carried: NDArray[np.int64]
    """Fine units that the placed nodes carry in each layer, shape (L,)."""
    least: int
    """Fine units of the slowest of the nodes that start in this layer."""
    last: tuple[int, int]
    """Group and end of the last of them. The next one is of a later group, or its end is not later."""
    trail: _Trail | None


class _Options(NamedTuple):
    """Ranges of a group's nodes from one layer on, the longest first."""

    ends: NDArray[np.int64]
    units: NDArray[np.int64]
    inside: NDArray[np.bool_]
    """Whether a layer, counted from the start, is in the range; shape (ranges, layers from the start on)."""


def widest_speeds(speeds: Floats) -> Floats:
    """T of the best range around each range: a node that holds more layers than it is counted for still carries them.

    Parameters
    ----------
    speeds
        T of the range [s, e) in ``speeds[s, e]``, tokens/s, shape (L + 1, L + 1); 0 where it does not fit.

    Returns
    -------
    ndarray
        The same shape; a shorter range is never slower.

    Examples
    --------
    >>> widest_speeds(np.array([[0, 3.0, 5.0], [0, 0, 4.0], [0, 0, 0]]))[0].tolist()
    [0.0, 5.0, 5.0]
    """
    widest = speeds.astype(float)
    size = len(widest)
    for k in range(size - 2, 0, -1):
        starts = np.arange(size - k)
        of_k = widest[starts, starts + k]
        of_k[1:] = np.maximum(of_k[1:], widest[starts[1:] - 1, starts[1:] + k])
        of_k[:-1] = np.maximum(of_k[:-1], widest[starts[:-1], starts[:-1] + k + 1])
        widest[starts, starts + k] = of_k
    return widest


class LayerSweep:
    """A search for a placement in which the nodes of every layer carry a target.

    Parameters
    ----------
    sizes
        Nodes of each group.
    speeds
        For each group T of the range [s, e) in ``[s, e]``, tokens/s, shape (L + 1, L + 1); see `widest_speeds`.
    target
        Tokens/s.
    prices
        Prices that cut states off; any number of them, each by itself valid.

    Examples
    --------
    Two nodes of T 10 for one layer and 7 for two cover two layers with 14 tokens/s, not with 15.

    >>> speeds = np.array([[0, 10.0, 7.0], [0, 0, 10.0], [0, 0, 0]])
    >>> LayerSweep([2], [speeds], 14.0, []).run(100).found
    (Held(group=0, start=0, end=2), Held(group=0, start=0, end=2))
    >>> LayerSweep([2], [speeds], 15.0, []).run(100).refuted
    True
    """

    def __init__(self, sizes: Sequence[int], speeds: Sequence[Floats], target: float, prices: Sequence[Prices]) -> None:
        self.sizes = tuple(sizes)
        self.num_layers = len(speeds[0]) - 1
        self.prices = list(prices)
        self._options = [[_options(of_group, start, target) for of_group in speeds] for start in range(self.num_layers)]
        self._met: set[tuple[int, tuple[int, ...], Active]] = set()

    def run(self, max_expansions: int, should_stop: Callable[[], bool] = lambda: False) -> Answer:
        """Search until the answer is known, `max_expansions` states were looked at, or it is told to stop."""
        carried = np.zeros(self.num_layers, np.int64)
        stack = [_State(0, self.sizes, (), carried, ONE, (0, self.num_layers), None)]
        expansions = 0
        while stack:
            if expansions >= max_expansions or (expansions % QUESTION_EXPANSIONS == 0 and should_stop()):
                return Answer(False, None, expansions)
            expansions += 1
            ranked: list[tuple[float, _State]] = []
            for slack, state in self._with_one_more(stack.pop()):
                following = state if state.carried[state.layer] < ONE else self._next(state)
                if following is None:
                    continue
                if following.layer == self.num_layers:
                    assert following.trail is not None
                    return Answer(False, following.trail.all(), expansions)
                ranked.append((slack, following))
            # The state of the most slack is looked at first.
            stack.extend(state for _, state in sorted(ranked, key=lambda pair: pair[0]))
        return Answer(True, None, expansions)

    def _with_one_more(self, state: _State) -> list[tuple[float, _State]]:
        """The states with one more node that starts in the layer, and the slack of their prices, in layers."""
        layer, left = state.layer, state.left
        lacks = np.maximum(ONE - state.carried[layer:], 0)
        states = []
        for group in range(state.last[0], len(left)):
            if left[group] == 0:
                continue
            rest = (*left[:group], left[group] - 1, *left[group + 1 :])
            ends, units, inside = self._options[layer][group]
            total = state.carried[layer] + units
            least = np.minimum(units, state.least)
            # Each node that starts here is needed here, and one that does not fill the layer needs another beside it.
            usable = np.where(total < ONE, sum(rest) > 0, total - least < ONE)
            if group == state.last[0]:
                usable &= ends <= state.last[1]
            rows = np.flatnonzero(usable)
            if not len(rows):
                continue
            slack = self._slack(layer, rest, lacks, units[rows], inside[rows])
            for row, room in zip(rows, slack):
                if room < -TOLERANCE:
                    continue
                end, speed = int(ends[row]), int(units[row])
                carried = state.carried.copy()
                carried[layer:end] += speed
                active = tuple(sorted((*state.active, (end, speed))))
                trail = _Trail(Held(group, layer, end), state.trail)
                states.append((float(room), _State(layer, rest, active, carried, int(least[row]), (group, end), trail)))
        return states

    def _slack(
        self,
        layer: int,
        left: tuple[int, ...],
        lacks: NDArray[np.int64],
        units: NDArray[np.int64],
        inside: NDArray[np.bool_],
    ) -> Floats:
        """By how much the nodes that are left are dearer than what is needed, for each range of one more node."""
        after = np.maximum(lacks - np.where(inside, units[:, None], 0), 0)
        levels = (after + (STEP - 1 - ROUNDING)) // STEP
        slack = np.full(len(units), np.inf)
        for prices in self.prices:
            needed = prices.cover[levels] @ prices.of_layer[layer:]
            slack = np.minimum(slack, float(prices.of_node @ np.array(left)) - needed)
        return slack

    def _next(self, state: _State) -> _State | None:
        """The state in the next layer that lacks something, L if none does; None where it was met or may be left."""
        short = np.flatnonzero(state.carried[state.layer :] < ONE)
        layer = state.layer + int(short[0]) if len(short) else self.num_layers
        if layer == self.num_layers:
            return state._replace(layer=layer)
        if any(end <= layer and state.carried[end - 1] - speed >= ONE for end, speed in state.active):
            return None  # a node is not needed in its last layer
        active = tuple(pair for pair in state.active if pair[0] > layer)
        key = layer, state.left, active
        if key in self._met:
            return None
        if len(self._met) < MAX_STATES:
            self._met.add(key)
        return _State(layer, state.left, active, state.carried, ONE, (0, self.num_layers), state.trail)


def _options(speeds: Floats, start: int, target: float) -> _Options:
    ends = np.array([end for end in range(len(speeds) - 1, start, -1) if speeds[start, end] > 0], np.int64)
    units = np.minimum(np.ceil(speeds[start, ends] / target * ONE), ONE).astype(np.int64)
    inside = np.arange(start, len(speeds) - 1) < ends[:, None]
    return _Options(ends, units, inside)


__all__ = ["LayerSweep", "widest_speeds"]
