"""The demo behind `make demo`: executes the quickstart notebook and prints a summary of its results.

In a checkout the executed notebook goes to ``out/``, which git ignores, so that the demo changes no tracked file. The
weights are fetched first, and the seconds that this takes are told apart from the rest.
"""

from __future__ import annotations

import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_kit._files import notebook_path
from helix_kit.errors import HelixKitError
from helix_kit.experiments.figures.common.rows import flow_fields
from helix_kit.experiments.machinery.files import CHECKOUT
from helix_kit.plots.formatting import format_number, format_percent

if TYPE_CHECKING:
    from helix_kit.placement.plan import Plan
    from helix_kit.report import Run

NOTEBOOK = "notebooks/00_quickstart.ipynb"
EXECUTED = "out/00_quickstart.ipynb"
"""The executed notebook of a checkout, which git ignores."""
NOTE_WIDTH = 116
SUMMARY_MIME = "application/vnd.helix-kit.summary+json"
"""The MIME type under which the notebook's last table also carries its numbers as data."""


class SummaryTable:
    """A table that shows numbers to readers and carries the same numbers for programs; `summary_table` builds it."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts

    def rows(self) -> list[tuple[str, str, str]]:
        """(quantity, simulated, measured) of the served cluster, as printed."""
        simulated, measured = self.facts["simulated"], self.facts["measured"]
        names = {
            "output_tokens_per_s": "output tokens/s",
            "prompt_latency_s": "prompt latency, average s",
            "decode_latency_s": "decode latency, average s",
        }
        return [(text, format_number(simulated[key]), format_number(measured[key])) for key, text in names.items()]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        cells = "".join(f"<tr><th>{a}</th><td>{b}</td><td>{c}</td></tr>" for a, b, c in self.rows())
        head = f"<tr><th>{self.facts['served_cluster']}</th><th>simulated</th><th>measured</th></tr>"
        text = "\n".join(f"{a:30} {b:>12} {c:>12}" for a, b, c in [("", "simulated", "measured"), *self.rows()])
        return {"text/html": f"<table>{head}{cells}</table>", "text/plain": text, SUMMARY_MIME: self.facts}


def summary_table(plan: Plan, run: Run, served_plan: Plan, simulated: Run, measured: Run) -> SummaryTable:
    """The served plan's measurements beside its simulation. `make demo` also reads the facts of the large plan."""

    def numbers(of: Run) -> dict[str, float]:
        summary = of.summary()
        return {
            "output_tokens_per_s": summary["output_tokens_per_s"],
            "prompt_latency_s": summary["prompt_latency_s"]["avg"],
            "decode_latency_s": summary["decode_latency_s"]["avg"],
        }

    def planned(of: Plan) -> dict[str, float]:
        return {**flow_fields(of), "seconds": of.seconds}

    served_load = load_of(measured)
    return SummaryTable(
        {
            "planned_cluster": f"{plan.model.name} on {plan.cluster.name}",
            "planned": planned(plan),
            "planned_run": {**numbers(run), "decode_tokens_per_s": run.summary()["decode_tokens_per_s"]},
            "served_cluster": f"{served_plan.model.name} on {served_plan.cluster.name}",
            "served": planned(served_plan),
            "answers": len(measured.records),
            "simulated": numbers(simulated),
            "measured": numbers(measured),
            "planned_load": load_of(run),
            "served_load": {**served_load, "total_tokens_per_s": measured.summary()["total_tokens_per_s"]},
        }
    )


def load_of(run: Run) -> dict[str, float]:
    """What arrived within the window of a run: requests/s, their mean lengths, and tokens/s in and out together."""
    start, end = run.window
    arrived = [r.request for r in run.records if start <= r.request.arrival_s <= end]
    if not arrived or end <= start:
        return {"requests_per_s": 0.0, "input_tokens": 0.0, "output_tokens": 0.0, "tokens_per_s": 0.0}
    tokens_in, tokens_out = sum(r.input_tokens for r in arrived), sum(r.output_tokens for r in arrived)
    return {
        "requests_per_s": len(arrived) / (end - start),
        "input_tokens": tokens_in / len(arrived),
        "output_tokens": tokens_out / len(arrived),
        "tokens_per_s": (tokens_in + tokens_out) / (end - start),
    }


def facts_of(notebook: Any) -> dict[str, Any]:
    """The numbers in the summary table of an executed notebook; raises LookupError if there is no such table."""
    for cell in reversed(notebook.cells):
        for output in cell.get("outputs", ()):
            if SUMMARY_MIME in output.get("data", {}):
                facts: dict[str, Any] = output["data"][SUMMARY_MIME]
                return facts
    raise LookupError(f"{NOTEBOOK} has no summary; was it executed to its end?")


def summary_text(facts: dict[str, Any]) -> str:
    """The summary that `make demo` prints."""
    plan, run, served = facts["planned"], facts["planned_run"], facts["served"]

    def planned(of: dict[str, float]) -> str:
        flow, bound = format_number(of["flow_tokens_per_s"]), format_number(of["bound_tokens_per_s"])
        return f"  planned    {flow} tokens/s, bound {bound}, gap {format_percent(of['gap'])}"

    prompt, decode = format_number(run["prompt_latency_s"]), format_number(run["decode_latency_s"])
    lines: list[str] = [
        "",
        facts["planned_cluster"],
        f"{planned(plan)}, {plan['seconds']:.1f} s",
        f"  simulated  {format_number(run['decode_tokens_per_s'])} tokens/s decoded, on average {prompt} s to the "
        f"first token and {decode} s to each further token",
        *_why_less(facts),
        "",
        facts["served_cluster"],
        planned(served),
        f"  served     {facts['answers']} prompts answered",
        f"  {'':33}{'simulated':>10}{'measured':>10}",
    ]
    lines += [f"  {text:33}{a:>10}{b:>10}" for text, a, b in SummaryTable(facts).rows()]
    return "\n".join([*lines, *_why_less_served(facts)])


def _why_less(facts: dict[str, Any]) -> list[str]:
    """Why the simulated tokens/s are far below the planned ones: what arrives, beside what could be carried."""
    load = facts.get("planned_load")
    flow = facts["planned"]["flow_tokens_per_s"]
    if not load or not load["tokens_per_s"]:
        return []
    share = load["tokens_per_s"] / flow
    output = load["requests_per_s"] * load["output_tokens"]
    return _note(
        f"Planned is what the machines can carry, prompt and output tokens together. Simulated is what comes out under "
        f"an online load: {format_number(load['requests_per_s'])} requests/s arrive, with {load['input_tokens']:.0f} "
        f"tokens in and {load['output_tokens']:.0f} out on average. That is {format_number(load['tokens_per_s'])} "
        f"tokens/s, {format_percent(share)} of the plan's flow, and {format_number(output)} of them are output. "
        "Decoded counts neither prompts, nor the first token of an answer, nor answers that end after the window."
    )


def _why_less_served(facts: dict[str, Any]) -> list[str]:
    """The same for the served cluster, where a few requests are sent once."""
    load = facts.get("served_load")
    if not load or not load["tokens_per_s"]:
        return []
    flow = format_number(facts["served"]["flow_tokens_per_s"])
    return _note(
        f"The measured {format_number(facts['measured']['output_tokens_per_s'])} tokens/s are output alone; with the "
        f"prompts the workers computed {format_number(load['total_tokens_per_s'])} tokens/s. The planned {flow} need "
        f"requests that wait all the time: here {facts['answers']} are sent once, and each has one token under way at "
        "a time."
    )


def _note(text: str) -> list[str]:
    return textwrap.wrap(text, NOTE_WIDTH, initial_indent="  why less   ", subsequent_indent=" " * 13)


def runnable_notebook() -> Path:
    """The quickstart: in a checkout the file itself; from an installed wheel a copy in the current folder."""
    path = CHECKOUT / NOTEBOOK
    if path.is_file():
        return path
    copy = Path(path.name).resolve()
    if not copy.is_file():
        copy.write_bytes(notebook_path(path.name).read_bytes())
    return copy


def executed_notebook(path: Path) -> Path:
    """Where the executed notebook goes: the demo leaves a checkout's own files as they are."""
    return CHECKOUT / EXECUTED if path.is_relative_to(CHECKOUT) else path


def fetch_weights() -> str:
    """Fetch the weights that the notebook serves, unless they are there; returns a sentence with the time it took.

    Raises WeightsUnavailableError when they cannot be fetched.
    """
    from helix_kit.runtime.weights.demo import DEMO_MODEL, demo_weights

    steps: list[str] = []

    def say(step: str) -> None:
        steps.append(step)
        print(step, flush=True)

    started = time.perf_counter()
    folder = demo_weights(say)
    if not steps:
        return f"The weights of {DEMO_MODEL} were there already ({folder})."
    seconds = time.perf_counter() - started
    return f"Before that, the weights of {DEMO_MODEL} took {seconds:.0f} s: fetched once, kept in {folder}."


def main() -> int:
    """Execute the quickstart with progress on standard error; the exit status is 1 when a cell failed."""
    from nbclient.exceptions import CellExecutionError

    from helix_kit.experiments.machinery.notebooks import execute

    path = runnable_notebook()
    executed = executed_notebook(path)
    try:
        weights = fetch_weights()
    except HelixKitError as error:
        print(f"The demo serves a model, and has no weights for it.\n{error}", file=sys.stderr)
        return 1
    print(f"Executing {path} ...", flush=True)
    started = time.perf_counter()

    def progress(done: int, total: int, heading: str) -> None:
        print(
            f"  {time.perf_counter() - started:4.0f} s  [{done + 1:2}/{total}]  {heading}", file=sys.stderr, flush=True
        )

    try:
        notebook = execute(path, progress=progress, output=executed)
    except CellExecutionError as error:
        print(f"\nA cell of {path} failed; the file is unchanged.\n\n{error}", file=sys.stderr)
        return 1
    print(summary_text(facts_of(notebook)))
    print(f"\n{time.perf_counter() - started:.0f} s to plan, simulate and serve. {weights}")
    print(f"The executed notebook with its pictures: {executed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
