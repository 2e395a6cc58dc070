"""A worker process of `Scorer`: problem and rules on the first line of standard input, then a task a line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from helix_kit.placement.plan import Plan
from helix_kit.placement.watch import Watch
from helix_kit.search.evaluate import Candidate, Evaluator, Rules, Setting
from helix_kit.search.scorer import decode, encode, layout_of


def answers(lines: Iterator[str]) -> Iterator[str]:
    """For each task the candidates that it made, as a line of JSON."""
    header = json.loads(next(lines))
    pins = layout_of(header["rules"].pop("pins"))
    evaluator = Evaluator(Plan.model_validate(header["plan"]).problem, Rules(**header["rules"], pins=pins))
    for line in lines:
        yield json.dumps([encode(c) for c in _do(evaluator, json.loads(line))])


def _do(evaluator: Evaluator, task: dict[str, Any]) -> list[Candidate]:
    if "polish" in task:
        polish = task["polish"]
        clock = Watch(polish["seconds"])
        return evaluator.polish(
            layout_of(polish["parent"]), seed=polish["seed"], rounds=polish["rounds"], over=clock.is_over
        )
    setting = Setting(**task["setting"])
    if "candidate" in task:
        return [evaluator.simulate(decode(task["candidate"]), setting)]
    step = task["step"]
    return evaluator.explore(
        layout_of(step["parent"]), setting, seed=step["seed"], known=set(task["known"]), picks=step["picks"],
        ease=step["ease"],
    )  # fmt: skip


def main() -> None:
    """Answer tasks until standard input ends."""
    for answer in answers(iter(sys.stdin)):
        print(answer, flush=True)


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        # Who asked is gone, killed perhaps: nobody is left to answer, and a traceback would be noise.
        os._exit(1)
