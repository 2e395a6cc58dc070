"""Writes ``docs/reproduction.md`` from the results in ``figures/``: pictures, agreement, and what did not agree.

Seconds and machines stay out of it, so the same results give the same document.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_kit.errors import InputError
from helix_kit.experiments.figures.agreement import EVALUATIONS, TOLERANCE_PERCENT
from helix_kit.experiments.figures.common.metrics import QUANTILES, SPEED
from helix_kit.experiments.machinery.catalogue import experiments
from helix_kit.experiments.machinery.files import load, measured_file
from helix_kit.experiments.machinery.registry import Experiment

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("gpu-catalogue", "problem-sizes", "solver-quality", "ablations", "modern-models")
"""Experiments whose whole table goes into the document."""
METHODS = {"separate": "separate pipelines", "separate_plus": "separate pipelines+", "shortest_queue": "shortest queue"}


def write_document(path: Path, folder: Path) -> None:
    """Write the document, and beside it ``all-results.md``; pictures are linked relative to it.

    Raises InputError where a result is missing.
    """
    done = {name: entry for name, entry in experiments().items() if (folder / f"{name}.csv").is_file()}
    for name in (*EVALUATIONS, "agreement"):
        if name not in done:
            raise InputError(f"run `helix-kit reproduce {name}` first: no such file", where=folder / f"{name}.csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(_lines(done, folder, path.parent)) + "\n", encoding="utf-8")
    (path.parent / "all-results.md").write_text("\n".join(_all_results(folder)) + "\n", encoding="utf-8")


def _lines(done: dict[str, Experiment], folder: Path, beside: Path) -> Iterator[str]:
    agreement = load("agreement", folder)
    yield "# The paper's evaluation, again"
    yield ""
    yield (
        "Every figure and table of Helix's evaluation (Mei et al., ASPLOS'25), from the data in this repository, by "
        "one command: `make figures`. This page is written by `helix-kit reproduce --all --document "
        "docs/reproduction.md`; nothing on it is typed by hand. Beside each picture in `figures/` lie its numbers "
        "(CSV) and its provenance (JSON: digests of code and data, seed, versions, seconds, machine)."
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
            f"; measured on the machine that drew it: [{more}]({link}/{more})." if entry.timed else "."
        )
        if name == "all-results":
            yield "The same as one page: [all-results.md](all-results.md)."
        yield ""
        if name in TABLES:
            yield from _markdown(load(name, folder))
        if name == "equal-load":
            yield from _equal_load(load(name, folder))
    yield from _all_throughputs(folder)
    yield from _disagreements(agreement)


def _bytes(done: dict[str, Experiment]) -> Iterator[str]:
    """What is the same at every run, and what is not."""
    timed = [f"`{name}`" for name, entry in done.items() if entry.timed]
    yield (
        "The same seed gives the same bytes: every CSV, and every picture but the "
        f"{len(timed)} that show what was measured on the machine that drew them ({', '.join(timed)}). Their "
        "measurements lie in a table of their own, `NAME-measured.csv`; `NAME.csv` holds what every machine gets. "
        "`helix-kit reproduce NAME` runs one of them again, `--redraw` only draws it from its tables."
    )
    yield ""


def _summary(agreement: pd.DataFrame, folder: Path) -> Iterator[str]:
    yield "## In short"
    yield ""
    for source in ("published simulation", "published prototype"):
        part = agreement[agreement["source"] == source]
        speed = part[part["metric"] == "decode_tokens_per_s"]["difference_percent"].abs()
        late = part[part["metric"] != "decode_tokens_per_s"]["difference_percent"].abs()
        yield (
            f"- Against the {source}: throughput of {len(speed)} runs, mean difference {speed.mean():.1f} %, largest "
            f"{speed.max():.1f} %; {len(late)} latencies, median difference {late.median():.1f} %, "
            f"{(late <= TOLERANCE_PERCENT).mean():.0%} of them within {TOLERANCE_PERCENT:.0f} %."
        )
    yield ""
    yield "Our plans over the published Helix plans (decode throughput, both in our simulator, at Helix's load):"
    yield ""
    yield from _table(("setup", "model", "mode", "made for most flow", "made to serve"), own_against_helix(folder))
    yield "Helix over the baselines (decode throughput):"
    yield ""
    rows = [
        (*key, baseline, *(f"{ratio:.2f}" if ratio else "" for ratio in ratios))
        for key, baseline, ratios in headline_ratios(folder)
    ]
    head = ("setup", "model", "mode", "over", "published simulation", "published prototype", "ours")
    yield from _table(head, rows)


def headline_ratios(folder: Path) -> Iterator[tuple[tuple[str, str, str], str, list[float | None]]]:
    """Helix's throughput over each baseline's, as published (simulation, prototype) and ours."""
    for name in EVALUATIONS[:3]:
        table = load(name, folder)
        speed = table[table["metric"] == "decode_tokens_per_s"]
        for key, part in speed.groupby(["setup", "model", "mode"], sort=False):
            values = part.set_index(["method", "source"])["value"].to_dict()
            for baseline in ("swarm", "separate", "separate_plus"):
                if (baseline, "ours") in values:
                    yield (
                        (str(key[0]), str(key[1]), str(key[2])),
                        METHODS.get(baseline, baseline.title()),
                        [
                            values["helix", s] / values[baseline, s] if (baseline, s) in values else None
                            for s in ("published simulation", "published prototype", "ours")
                        ],
                    )


def own_against_helix(folder: Path) -> Iterator[tuple[str, ...]]:
    """Setup, model, mode, and our plans' throughput over that of the published Helix plan, both in our simulator."""
    for name in EVALUATIONS[:3]:
        table = load(name, folder)
        speed = table[(table["metric"] == SPEED) & (table["source"] == "ours")]
        for key, part in speed.groupby(["setup", "model", "mode"], sort=False):
            values = part.set_index("method")["value"].to_dict()
            ratios = (values[own] / values["helix"] if own in values else None for own in ("own flow", "own served"))
            yield (*(str(k) for k in key), *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios))


def _equal_load(table: pd.DataFrame) -> Iterator[str]:
    """Decode throughput by setup and rule, a column a method, with what was offered."""
    wide = table[table["metric"].isin(["decode_tokens_per_s", "offered_tokens_per_s"])]
    methods = list(dict.fromkeys(wide["method"]))
    rows = []
    for (setup, rule), part in wide.groupby(["setup", "source"], sort=False):
        values = part.set_index(["method", "metric"])["value"].to_dict()
        cells = [f"{values[m, 'decode_tokens_per_s']:.0f} of {values[m, 'offered_tokens_per_s']:.0f}" for m in methods]
        rows.append((str(setup), str(rule), *cells))
    yield "Decode tokens/s served, of those offered:"
    yield ""
    yield from _table(("setup", "rule", *(METHODS.get(m, m) for m in methods)), rows)


def _all_throughputs(folder: Path) -> Iterator[str]:
    yield "## All throughputs"
    yield ""
    yield "Decode tokens/s. Own plans are ours alone, so nothing is published for them."
    yield ""
    rows = []
    for name in EVALUATIONS:
        table = load(name, folder)
        speed = table[table["metric"] == "decode_tokens_per_s"]
        keys = ["section", "setup", "model", "mode", "method"]
        for found, part in speed.groupby(keys, sort=False):
            key = [str(k) for k in found]
            values = part.set_index("source")["value"].to_dict()
            cells = [values.get(s) for s in ("published simulation", "published prototype", "ours")]
            difference = f"{100 * (cells[2] / cells[0] - 1):+.1f} %" if cells[0] and cells[2] else ""
            shown = ("" if c is None else f"{c:.1f}" for c in cells)
            rows.append((*key[:4], METHODS.get(key[4], key[4]), *shown, difference))
    head = ("section", "setup", "model", "mode", "method", "published simulation", "prototype", "ours", "to simulation")
    yield from _table(head, rows)


def _all_results(folder: Path) -> Iterator[str]:
    """Every run of the evaluation, published and ours: one table, a column a metric."""
    names = {SPEED: "decode tokens/s"}
    names |= {f"{p}_latency_{q}_s": f"{p} {q}" for p in ("prompt", "decode") for q in ("avg", *QUANTILES)}
    yield "# All results of the evaluation"
    yield ""
    yield (
        "Every metric of every run, published and ours, from `figures/all-results.csv`; written by `helix-kit "
        "reproduce --document`. Latencies in seconds: average and percentiles. Empty: not published, or no request "
        "has it. Prompt latency is the time to the first token, decode latency that to each further one."
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
    simulated = (off["source"] == "published simulation").sum()
    yield (
        f"Every published number of the evaluation that ours misses by more than {TOLERANCE_PERCENT:.0f} %: {len(off)} "
        f"of {len(agreement)}. All but {simulated} of them are measurements of the "
        "prototype: our simulator follows the published simulator's rules, so it inherits its distance from real "
        "machines. Both leave out what the software around the layers takes: the coordinator's own work, packing and "
        "copying of messages, steps of unequal length."
    )
    yield ""
    again = agreement[agreement["source"] == "published prototype"]
    again = again[(again["metric"] == SPEED) & (again["method"] == "helix") & (again["mode"] == "offline")]
    again = again[again["model"] == "llama2-70b"]
    told = ", ".join(f"{r['published']:g} (section {r['section']})" for r in again.to_dict("records"))
    yield (
        "Real machines differ from run to run as well: for Helix with LLaMA-2 70B offline the prototype is reported "
        f"at {told} tokens/s."
    )
    yield ""
    for source in ("published simulation", "published prototype"):
        part = off[off["source"] == source]
        yield f"### Against the {source}"
        yield ""
        speed = part[part["metric"] == "decode_tokens_per_s"]
        rest = part[part["metric"] != "decode_tokens_per_s"]
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
