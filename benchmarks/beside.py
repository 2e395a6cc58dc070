"""The runtime of two checkouts, each in a process of its own, that take turns at the same requests.

`Checkout` starts this file as a program with the checkout's folder first on its path. The program answers one line for
each line that it is given. So both runtimes have the same weights and prompts, and a slow minute affects both.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TURNS = ("one worker", "four workers")
CUTS = {"one worker": [], "four workers": [8, 16, 23]}

Figures = dict[str, dict[str, list[float]]]
"""What each of `TURNS` gave in each round, by "per_cpu_s_8" for batch 8 and so on."""


class Checkout:
    """Engines of the code in `folder`; a context manager.

    Raises RuntimeError where the process ends, and ValueError where `folder` has no helix_kit.
    """

    def __init__(self, folder: Path, weights: Path) -> None:
        self._folder = folder.resolve()
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(weights)],
            env={**os.environ, "PYTHONPATH": str(self._folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Checkout:
        package = Path(self._answer()["package"])
        if not package.is_relative_to(self._folder):
            self._stop()
            raise ValueError(f"{self._folder}: expected a checkout with a folder helix_kit; Python imports {package}")
        self._ask({"start": list(TURNS)})
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop()

    def turn(self, name: str, batch: int, new_tokens: int) -> dict[str, float]:
        """What `bench_runtime.run_engine` measures, with the engine called `name`."""
        return self._ask({"name": name, "batch": batch, "new_tokens": new_tokens})

    @property
    def commit(self) -> str:
        """The commit of the checkout and its date, and whether files were changed since."""
        git = ["git", "-C", str(self._folder)]
        said = subprocess.run([*git, "log", "-1", "--format=%h of %cs"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
        return said.stdout.strip() + (" with changes" if changed.strip() else "")

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the engines of {self._folder} ended with exit status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _stop(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


def measure(
    folders: dict[str, Path], weights: Path, batches: Sequence[int], new_tokens: int, rounds: int
) -> tuple[dict[str, Figures], dict[str, str]]:
    """The figures of each checkout by its name, and their commits. The first in a round is the last in the next one."""
    with contextlib.ExitStack() as stack:
        checkouts = {name: stack.enter_context(Checkout(folder, weights)) for name, folder in folders.items()}
        found: dict[str, Figures] = {name: {turn: {} for turn in TURNS} for name in checkouts}
        order = list(checkouts)
        for _ in range(rounds):
            for batch in batches:
                for turn in TURNS:
                    for name in order:
                        for key, value in checkouts[name].turn(turn, batch, new_tokens).items():
                            found[name][turn].setdefault(f"{key}_{batch}", []).append(value)
            order.reverse()
        return found, {name: checkout.commit for name, checkout in checkouts.items()}


def ratios(now: Sequence[float], before: Sequence[float]) -> tuple[float, float, float]:
    """Median, lowest and highest ratio of a round.

    >>> ratios([2.0, 3.0, 5.0], [2.0, 2.0, 2.0])
    (1.5, 1.0, 2.5)
    """
    found = [one / other for one, other in zip(now, before, strict=True)]
    return statistics.median(found), min(found), max(found)


def table(now: Figures, before: Figures, batches: Sequence[int]) -> list[str]:
    """Both checkouts and their ratios, as a table in Markdown."""
    lines = [
        "| tokens per CPU-second | " + " | ".join(f"batch {batch}" for batch in batches) + " |",
        "|---|" + "---:|" * len(batches),
    ]

    def row(label: str, values: Sequence[str]) -> None:
        lines.append(f"| {label} | " + " | ".join(values) + " |")

    for turn in TURNS:
        for label, figures in (("before", before), ("now", now)):
            medians = [statistics.median(figures[turn][f"per_cpu_s_{batch}"]) for batch in batches]
            row(f"{turn}, {label}", [f"{value:.1f}" for value in medians])
        keys = [f"per_cpu_s_{batch}" for batch in batches]
        spans = [ratios(now[turn][key], before[turn][key]) for key in keys]
        row(f"{turn}, now / before", [f"{mid:.2f}x ({low:.2f} to {high:.2f})" for mid, low, high in spans])
    for label, figures in (("before", before), ("now", now)):
        keys = [f"coordinator_ms_per_token_{batch}" for batch in batches]
        spent = [statistics.median(figures["four workers"][key]) for key in keys]
        row(f"coordinator, CPU ms per token, {label}", [f"{value:.3f}" for value in spent])
    return lines


def _answer_questions(weights: Path) -> None:
    """The program of a checkout: one answer on the standard output for each question on the standard input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the engines print is no answer

    def answer(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    import helix_kit

    answer({"package": helix_kit.__file__})
    from bench_runtime import run_engine, start_engine

    engines: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        for line in sys.stdin:
            question = json.loads(line)
            for name in question.get("start", ()):
                engines[name] = start_engine(stack, weights, CUTS[name])
            found = {}
            if "name" in question:
                found = run_engine(engines[question["name"]], question["batch"], question["new_tokens"])
            answer(found)


if __name__ == "__main__":
    _answer_questions(Path(sys.argv[1]))
