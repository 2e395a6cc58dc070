"""A worker process of `Scorer`: the problem on the first line of standard input, then a candidate a line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from helix_kit.flow import Flow
from helix_kit.placement.plan import Plan
from helix_kit.search.scorer import Candidate, Setting, score_one


def _decode(line: str) -> tuple[Candidate, Setting]:
    task: dict[str, Any] = json.loads(line)
    flow = Flow(task["value"], {(a, b): f for a, b, f in task["edges"]}, {}, ())
    return ({n: (s, e) for n, (s, e) in task["placement"].items()}, flow), Setting(**task["setting"])


def _answers(lines: Iterator[str]) -> Iterator[str]:
    problem = Plan.model_validate_json(next(lines)).problem
    for line in lines:
        yield json.dumps(score_one(problem, *_decode(line)))


def main() -> None:
    """A worker: the problem on the first line of standard input, then a candidate a line."""
    for answer in _answers(iter(sys.stdin)):
        print(answer, flush=True)


if __name__ == "__main__":
    main()
