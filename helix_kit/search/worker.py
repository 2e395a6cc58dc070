"""The program of a worker process of `Scorer`: a header on the first line of standard input, then one task a line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from helix_kit.search.messages import answer_line, evaluator_of, task_of


def answers(lines: Iterator[str]) -> Iterator[str]:
    """The answer to each task, as a line of JSON."""
    evaluator = evaluator_of(next(lines))
    for line in lines:
        yield answer_line(task_of(line).run(evaluator))


def main() -> None:
    """Answer tasks until standard input ends."""
    for answer in answers(iter(sys.stdin)):
        print(answer, flush=True)


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        # The planner has ended, perhaps killed: no process reads an answer, and a traceback would only be noise.
        os._exit(1)
