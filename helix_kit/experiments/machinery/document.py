"""Writes ``docs/reproduction.md`` from the results in ``figures/``: pictures, agreement, and what did not agree.

It contains no seconds and no names of machines, so the same results give the same document.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_kit.errors import InputError
from helix_kit.experiments.figures.agreement import EVALUATIONS, TOLERANCE_PERCENT
from helix_kit.experiments.figures.common.metrics import QUANTILES, SPEED
from helix_kit.experiments.figures.common.rows import BASELINES, OURS, PROTOTYPE, SIMULATION
from helix_kit.experiments.figures.common.settings import OWN_PLANS
from helix_kit.experiments.machinery.catalogue import experiments
from helix_kit.experiments.machinery.files import load, measured_file
from helix_kit.experiments.machinery.registry import Experiment

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("gpu-catalogue", "problem-sizes", "solver-quality", "ablations", "modern-models")
"""Experiments whose whole table is in the document."""
SECTIONS = EVALUATIONS[:3]
"""The experiments of sections 6.3 to 6.5, in which methods are compared as a whole."""
SOURCES = (SIMULATION, PROTOTYPE, OURS)
STEPS = ("published", "fair base", "served", "served, first split")
"""Plans of the experiment ``own-plans`` that tell apart what placement, links and split gain."""
METHODS = {"separate": "separate pipelines", "separate_plus": "separate pipelines+", "shortest_queue": "shortest queue"}


def write_document(path: Path, folder: Path) -> None:
    """Write the document, with links to the pictures relative to it, and beside it ``all-results.md``.

    Raises InputError if a result that it needs is missing.
    """
    done = {name: entry for name, entry in experiments().items() if (folder / f"{name}.csv").is_file()}
    for name in (*EVALUATIONS, "agreement", OWN_PLANS):
        if name not in done:
            raise InputError(f"run `helix-kit reproduce {name}` first: no such file", where=folder / f"{name}.csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(_lines(done, folder, path.parent)) + "\n", encoding="utf-8")
    (path.parent / "all-results.md").write_text("\n".join(_all_results(folder)) + "\n", encoding="utf-8")


def _lines(done: dict[str, Experiment], folder: Path, beside: Path) -> Iterator[str]:
    agreement = load("agreement", folder)
    yield "# The paper's evaluation, reproduced"
    yield ""
    yield (
        "`make figures` reproduces every figure and table of Helix's evaluation (Mei et al., ASPLOS'25) from the data "
        "in this repository. `helix-kit reproduce --all --document docs/reproduction.md` writes this page; nothing on "
        "it is typed by hand. Beside each picture in `figures/` are its numbers (CSV) and its provenance (JSON: "
        "digests of code and data, seed, versions, seconds, machine)."
    )
    yield ""
    yield from _bytes(done)
    yield from _summary(agreement, folder)
    for name, entry in done.items():
        yield f"## {entry.title}"
        yield ""
        yield f"{entry.paper}. {entry.text}".strip()
        yield ""
        link = os.path.relpath(folder, beside)
        yield f"![{entry.title}]({link}/{name}.png)"
        yield ""
        more = measured_file(name, folder).name
        yield f"Numbers: [{name}.csv]({link}/{name}.csv)" + (
            f"; measurements of the machine that drew it: [{more}]({link}/{more})." if entry.timed else "."
        )
        if name == "all-results":
            yield "All of them on one page: [all-results.md](all-results.md)."
        yield ""
        if name in TABLES:
            yield from _markdown(load(name, folder))
        if name == "equal-load":
            yield from _equal_load(load(name, folder))
    yield from _all_throughputs(folder)
    yield from _disagreements(agreement)


def _bytes(done: dict[str, Experiment]) -> Iterator[str]:
    """Which files are the same at every run, and which are not."""
    timed = [f"`{name}`" for name, entry in done.items() if entry.timed]
    yield (
        f"The same seed gives the same bytes of every CSV, and of every picture except the {len(timed)} that show "
        f"measurements of the machine that drew them ({', '.join(timed)}). These measurements are in a table of their "
        "own, `NAME-measured.csv`; `NAME.csv` is the same on every machine. `helix-kit reproduce NAME` runs one "
        "experiment, and `--redraw` only draws it from its tables."
    )
    yield ""


def _summary(agreement: pd.DataFrame, folder: Path) -> Iterator[str]:
    yield "## Summary"
    yield ""
    for source in (SIMULATION, PROTOTYPE):
        part = agreement[agreement["source"] == source]
        speed = part[part["metric"] == SPEED]["difference_percent"].abs()
        latency = part[part["metric"] != SPEED]["difference_percent"].abs()
        yield (
            f"- Against the {source}: throughput of {len(speed)} runs, mean difference {speed.mean():.1f} %, largest "
            f"{speed.max():.1f} %; {len(latency)} latencies, median difference {latency.median():.1f} %, "
            f"{(latency <= TOLERANCE_PERCENT).mean():.0%} of them within {TOLERANCE_PERCENT:.0f} %."
        )
    yield ""
    yield "Decode throughput of our plans over that of Helix's plans, both in our simulator at Helix's load:"
    yield ""
    yield from _table(("setup", "model", "mode", "largest flow", "served"), own_against_helix(folder))
    yield from _own_in_steps(load(OWN_PLANS, folder))
    yield "Decode throughput of Helix over that of the baselines:"
    yield ""
    rows = [
        (*key, baseline, *(f"{ratio:.2f}" if ratio else "" for ratio in ratios))
        for key, baseline, ratios in headline_ratios(folder)
    ]
    head = ("setup", "model", "mode", "over", "published simulation", "published prototype", "ours")
    yield from _table(head, rows)


def _throughputs(folder: Path, names: Iterable[str]) -> Iterator[tuple[tuple[str, ...], dict[tuple[str, str], float]]]:
    """(section, setup, model, mode) and (method, source) -> decode tokens/s, for each case of the evaluations."""
    for name in names:
        table = load(name, folder)
        speed = table[table["metric"] == SPEED]
        for key, rows in speed.groupby(["section", "setup", "model", "mode"], sort=False):
            values: dict[Any, float] = rows.set_index(["method", "source"])["value"].to_dict()
            yield tuple(str(k) for k in key), values


def headline_ratios(folder: Path) -> Iterator[tuple[tuple[str, ...], str, list[float | None]]]:
    """(setup, model, mode), baseline, and Helix's throughput over the baseline's in each of `SOURCES`."""
    for (_, *key), values in _throughputs(folder, SECTIONS):
        for baseline in BASELINES:
            if (baseline, OURS) in values:
                ratios = [
                    values["helix", s] / values[baseline, s] if (baseline, s) in values else None for s in SOURCES
                ]
                yield tuple(key), METHODS.get(baseline, baseline.title()), ratios


def own_against_helix(folder: Path) -> Iterator[tuple[str, ...]]:
    """Setup, model, mode, and our plans' throughput over that of the published Helix plan, both in our simulator."""
    for (_, *key), values in _throughputs(folder, SECTIONS):
        helix = values["helix", OURS]
        ours = (values.get((own, OURS)) for own in ("own flow", "own served"))
        yield (*key, *("" if speed is None else f"{speed / helix:.2f}" for speed in ours))


def _own_in_steps(table: pd.DataFrame) -> Iterator[str]:
    """What placement, links and split gain, over six request streams; nothing where the table does not say."""
    if "six_streams_tokens_per_s" not in table:
        return
    yield (
        "Decode tokens/s offline, means over six request streams that no search draws. The fair base is the published "
        "placement with all links and our split of the flow. The first split is the maximum flow that networkx finds, "
        "as the published scheduler has. Named are the mean latencies of our served plan that are above the published "
        "plan's."
    )
    yield ""
    rows = []
    for (setup, model), part in table.groupby(["setup", "model"], sort=False):
        one = part.drop_duplicates("objective").set_index("objective")
        speeds = [one.at[name, "six_streams_tokens_per_s"] for name in STEPS]
        missed = one.at["served", "missed"]
        cells: list[Any] = [one.at["published", "paper_tokens_per_s"], *speeds]
        shown = [f"{cell:.1f}" for cell in cells]
        rows.append((setup, model, *shown, missed if isinstance(missed, str) and missed else "none"))
    head = ("setup", "model", "the paper", "published", "fair base", "served", "served, first split", "latencies")
    yield from _table(head, rows)


def _equal_load(table: pd.DataFrame) -> Iterator[str]:
    """Decode throughput and offered load by setup and rule, with one column for each method."""
    wide = table[table["metric"].isin([SPEED, "offered_tokens_per_s"])]
    methods = list(dict.fromkeys(wide["method"]))
    rows = []
    for (setup, rule), part in wide.groupby(["setup", "source"], sort=False):
        values = part.set_index(["method", "metric"])["value"].to_dict()
        cells = [f"{values[m, SPEED]:.0f} of {values[m, 'offered_tokens_per_s']:.0f}" for m in methods]
        rows.append((str(setup), str(rule), *cells))
    yield "Decode tokens/s that were served, of those offered:"
    yield ""
    yield from _table(("setup", "rule", *(METHODS.get(m, m) for m in methods)), rows)


def _all_throughputs(folder: Path) -> Iterator[str]:
    yield "## All throughputs"
    yield ""
    yield "Decode tokens/s. Nothing is published for our own plans."
    yield ""
    rows = []
    for key, values in _throughputs(folder, EVALUATIONS):
        for method in dict.fromkeys(method for method, _ in values):
            published, prototype, ours = (values.get((method, source)) for source in SOURCES)
            difference = f"{100 * (ours / published - 1):+.1f} %" if published and ours else ""
            shown = ("" if value is None else f"{value:.1f}" for value in (published, prototype, ours))
            rows.append((*key, METHODS.get(method, method), *shown, difference))
    head = ("section", "setup", "model", "mode", "method", "published simulation", "prototype", "ours", "to simulation")
    yield from _table(head, rows)


def _all_results(folder: Path) -> Iterator[str]:
    """One table of every run of the evaluation, published and ours, with one column for each metric."""
    names = {SPEED: "decode tokens/s"}
    names |= {f"{p}_latency_{q}_s": f"{p} {q}" for p in ("prompt", "decode") for q in ("avg", *QUANTILES)}
    yield "# All results of the evaluation"
    yield ""
    yield (
        "Every metric of every run, published and ours, from `figures/all-results.csv`; written by `helix-kit "
        "reproduce --document`. Latencies are in seconds: average and percentiles. A cell is empty if the value was "
        "not published, or if no request has it. Prompt latency is the time to the first token, decode latency the "
        "time to each further token."
    )
    yield ""
    keys = ["section", "setup", "model", "mode", "method", "source"]
    rows = []
    for found, part in load("all-results", folder).groupby(keys, sort=False):
        key = [str(k) for k in found]
        values = part.set_index("metric")["value"].to_dict()
        cells = (values.get(metric) for metric in names)
        shown = ("" if c is None else f"{c:.1f}" if i == 0 else f"{c:.3g}" for i, c in enumerate(cells))
        rows.append((*key[:4], METHODS.get(key[4], key[4]), key[5], *shown))
    yield from _table((*keys, *names.values()), rows)


def _disagreements(agreement: pd.DataFrame) -> Iterator[str]:
    off = agreement[agreement["difference_percent"].abs() > TOLERANCE_PERCENT]
    yield "## What did not agree"
    yield ""
    simulated = (off["source"] == SIMULATION).sum()
    yield (
        f"Our value differs by more than {TOLERANCE_PERCENT:.0f} % from {len(off)} of {len(agreement)} published "
        f"numbers. All but {simulated} of these are measurements of the prototype. Our simulator follows the published "
        "simulator's rules, so it differs from real machines as that simulator does. Both leave out the time of the "
        "software around the layers: the coordinator's own work, packing and copying of messages, and steps of "
        "unequal length."
    )
    yield ""
    again = agreement[agreement["source"] == PROTOTYPE]
    again = again[(again["metric"] == SPEED) & (again["method"] == "helix") & (again["mode"] == "offline")]
    again = again[again["model"] == "llama2-70b"]
    values = ", ".join(f"{r['published']:g} (section {r['section']})" for r in again.to_dict("records"))
    yield (
        "Real machines also differ from run to run: for Helix with LLaMA-2 70B offline the paper reports the prototype "
        f"at {values} tokens/s."
    )
    yield ""
    for source in (SIMULATION, PROTOTYPE):
        part = off[off["source"] == source]
        yield f"### Against the {source}"
        yield ""
        speed = part[part["metric"] == SPEED]
        rest = part[part["metric"] != SPEED]
        head = ("section", "setup", "model", "mode", "method", "metric", "published", "ours", "difference", "reason")
        if len(speed):
            yield from _table(head, _rows(speed))
        if len(rest):
            yield f"<details><summary>{len(rest)} latencies</summary>"
            yield ""
            yield from _table(head, _rows(rest))
            yield "</details>"
            yield ""


def _rows(table: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    for row in table.to_dict("records"):
        shown = [f"{row['published']:g}", f"{row['ours']:.4g}", f"{row['difference_percent']:+.1f} %", row["reason"]]
        method = METHODS.get(row["method"], row["method"])
        metric = row["metric"].replace("_tokens_per_s", " throughput, tokens/s").replace("_", " ")
        yield (row["section"], row["setup"], row["model"], row["mode"], method, metric, *shown)


def _markdown(table: pd.DataFrame) -> Iterator[str]:
    import pandas as pd

    shown = [
        ["" if pd.isna(value) else f"{value:,.6g}" if isinstance(value, float) else str(value) for value in row]
        for row in table.itertuples(index=False)
    ]
    yield from _table([str(c).replace("_", " ") for c in table.columns], shown)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(str(cell) for cell in row) + " |"
    yield ""
