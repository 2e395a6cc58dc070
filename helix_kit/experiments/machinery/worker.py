"""The program of a worker process of `run_all`: folder, pace and seed in the first line, then one experiment a line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

from helix_kit._line_workers import serve
from helix_kit.errors import HelixKitError
from helix_kit.experiments.machinery.registry import Context
from helix_kit.experiments.machinery.running import run_one


def answers(lines: Iterator[str]) -> Iterator[str]:
    """What became of each experiment, as a line of JSON: the fields of `Ran`, or the message of what went wrong."""
    header = json.loads(next(lines))
    folder, context = Path(header["folder"]), Context(header["fast"], header["seed"])
    for line in lines:
        task = json.loads(line)
        # What an experiment prints is no answer.
        with redirect_stdout(sys.stderr):
            try:
                answer = run_one(task["name"], folder, context, task["force"])._asdict()
            except HelixKitError as error:
                answer = {"error": str(error)}
            except OSError as error:
                answer = {"error": f"{error.filename}: {error.strerror}" if error.filename else str(error)}
        yield json.dumps(answer)


if __name__ == "__main__":
    serve(answers)
