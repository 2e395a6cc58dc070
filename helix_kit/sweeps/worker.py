"""The program of a worker process of a sweep: a header on the first line of standard input, then one point a line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

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


def main() -> None:
    """Answer until standard input ends."""
    for answer in answers(iter(sys.stdin)):
        print(answer, flush=True)


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        os._exit(1)  # the sweep has ended, perhaps killed: no process reads an answer
