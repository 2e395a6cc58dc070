"""The program of a worker process of `Scorer`: a header on the first line of standard input, then one task a line."""

from __future__ import annotations

from collections.abc import Iterator

from helix_kit._line_workers import serve
from helix_kit.search.messages import answer_line, evaluator_of, task_of


def answers(lines: Iterator[str]) -> Iterator[str]:
    """The answer to each task, as a line of JSON."""
    evaluator = evaluator_of(next(lines))
    for line in lines:
        yield answer_line(task_of(line).run(evaluator))


if __name__ == "__main__":
    serve(answers)
