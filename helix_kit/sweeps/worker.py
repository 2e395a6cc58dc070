"""The program of a worker process of a sweep: a header on the first line of standard input, then one point a line."""

from __future__ import annotations

import json
from collections.abc import Iterator

from helix_kit._line_workers import serve
from helix_kit.placement.plan import Plan
from helix_kit.sweeps.messages import options_of
from helix_kit.sweeps.point import Point, measure


def answers(lines: Iterator[str]) -> Iterator[str]:
    """The row of each point, as a line of JSON."""
    header = json.loads(next(lines))
    options, plans = options_of(header), {name: Plan.load(path) for name, path in header["plans"].items()}
    for line in lines:
        point = Point(**json.loads(line))
        yield json.dumps(measure(plans[point.plan], point, options))


if __name__ == "__main__":
    serve(answers)
