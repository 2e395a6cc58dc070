"""The document of served plans: its sections, rows that are replaced, and the sentence of the README that follows."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from helix_kit.experiments.figures.common.comparison import LABELS

SAMPLES = 10
"""Draws of wrong profiles."""
COLUMNS = (
    "| cluster | model | plan | tokens/s | published stream | times published | times its placement | "
    "prompt mean, p95 s | decode mean, p95 s | mean latency above the published |\n"
    "|---|---|---|---:|---:|---:|---:|---:|---:|---|\n"
)
SECTIONS: dict[str, tuple[str, str]] = {
    "offline": (
        "Offline, balanced flow",
        "`execution=layerwise`, Helix's scheduler. The search is told to keep both mean latencies under 97 % of the\n"
        "published plan's.\n\n" + COLUMNS,
    ),
    "any": (
        "Offline, the first maximum flow found",
        '`flow_split="any"`: requests follow the maximum flow that networkx finds on our network. The published\n'
        "program takes its flow from networkx too, on a network with vertices in another order. So its split is\n"
        "another one, and changes with Python's hash seed. Latencies are kept as above.\n\n" + COLUMNS,
    ),
    "online": (
        "Online at the published rates",
        "Published arrivals, half an hour of them; plans are judged by latency, at 97 % of the published means or\n"
        "less. There is one published stream of arrivals for each rate.\n\n" + COLUMNS,
    ),
    "range": (
        "Offline by the rules of our runtime",
        "`execution=range`: nodes run whole ranges, prefill is cut into chunks, decodes go first. The published plan\n"
        "is simulated by the same rules, with its own links and split, and with all links and our split. No latency\n"
        "limits are given to the search.\n\n" + COLUMNS,
    ),
    "robustness": (
        "Wrong profiles",
        f"In each of {SAMPLES} draws the times of each kind of machine are off by up to 20 %; plans and flows stay as\n"
        "planned, and all are simulated (ten minutes). The plans are those of the first section.\n\n"
        "| cluster | model | ours: mean, worst tokens/s | rival | rival's mean | ours ahead in |\n"
        "|---|---|---:|---|---:|---:|\n",
    ),
    "predictor": (
        "Predictor on held-out plans",
        "Spearman's rank correlation with the simulated decode tokens/s over random plans that the predictor's\n"
        "constants were not fitted on (`helix_kit.search.held_out`).\n\n"
        "| cluster | model | plans | predictor | max flow |\n|---|---|---:|---:|---:|\n",
    ),
}
PLANS = (
    "The plans",
    "Stored in `data/served_plans`. Seeds are those of the search and of its last comparison, in its own sampler.\n"
    "A search starts from the plan that was stored before it, among others.\n\n"
    "| section | cluster | model | stages | searched s | simulated | seeds | found |\n"
    "|---|---|---|---:|---:|---:|---|---|\n",
)
MEASURED = (
    "When and where",
    "| section | cluster | model | date | Python | machine | cores | worker processes |\n"
    "|---|---|---|---|---|---|---:|---:|\n",
)
HEAD = """# What served plans serve

Written by `make bench-served` (`benchmarks/bench_served.py`) from the plans in `data/served_plans`; the last table says
when and where each row was measured.

Offline: means over the request streams that the published sampler draws with six seeds, ten minutes each. Column
"published stream" is the first of them, on which the paper's figure was measured. On hetero42 that figure belongs to
the flow of another hash seed of Python than the stored one. No plan was chosen on these streams: the search draws from
a sampler of its own. Latencies are means and 95th percentiles over requests and decode steps.

Three things differ between the published plans and ours, and the rows change one after the other: the split of the
flow, the links, and the placement. "Times its placement" compares with the published placement at its best: the best of
its rows. The published 30B plans are three separate clusters with a scheduler each, theirs added up; ours is one. The
row "under the published scheduler" has our placement with the maximum flow that networkx finds, as in the published
program. The last column names each mean latency that is above the published plan's.
"""
SENTENCE = ("<!-- served plans: written by benchmarks/bench_served.py --readme -->", "<!-- end of served plans -->")
"""The lines around the sentence of the README."""
PLACES = {"single24": "24 nodes in one region", "geo24": "24 nodes in three regions", "hetero42": "42 nodes"}


def rows_in(document: list[str], part: tuple[str, str]) -> range | None:
    """The lines of a document with the rows of a part's table; None if it has no such part.

    Raises ValueError if the part has a table of other columns.
    """
    title, intro = part
    if f"## {title}" not in document:
        return None
    first = document.index(f"## {title}") + 1
    last = next((i for i in range(first, len(document)) if document[i].startswith("## ")), len(document))
    columns = intro.splitlines()[-2]
    if columns not in document[first:last]:
        raise ValueError(f"the table of {title!r} has other columns than this program writes; write to another file")
    start = document.index(columns, first) + 2
    return range(start, next((i for i in range(start, last) if not document[i].startswith("|")), last))


def merged(text: str, part: tuple[str, str], lines: str, cells: Sequence[str]) -> str:
    """The document with `lines` in place of the rows of that part that begin with `cells`, or after the others."""
    document = text.splitlines()
    found = rows_in(document, part)
    if found is None:
        title, intro = part
        before, mark, after = text.partition(f"\n## {MEASURED[0]}\n")
        return f"{before.rstrip()}\n\n## {title}\n\n{intro}{lines}{mark}{after}"
    begin = "| " + " | ".join(cells) + " "
    old = [i for i in found if document[i].startswith(begin)]
    at = old[0] if old else found.stop
    kept = [line for i, line in enumerate(document) if i not in old]
    return "\n".join([*kept[:at], *lines.splitlines(), *kept[at:]]) + "\n"


def sentence(document: str) -> str:
    """What the document's first table says of LLaMA-2 70B, in words."""
    lines = document.splitlines()
    found = rows_in(lines, SECTIONS["offline"])
    assert found is not None, "a document with the first table"
    rows = [[cell.strip(" *") for cell in lines[i].strip("|").split("|")] for i in found]
    ours, first = (
        {row[0]: row for row in rows if row[1] == "llama2-70b" and row[2] == LABELS[name]}
        for name in ("ours", "ours, first split")
    )
    parts = [f"{row[5]} times on {PLACES[cluster]}" for cluster, row in ours.items()]
    beside = ", ".join(row[6] for row in ours.values())
    unmodified = ", ".join(row[5] for row in first.values())
    text = (
        "On the published clusters with LLaMA-2 70B, offline, plans made to serve decode more tokens/s than the "
        f"published plans: {', '.join(parts)}. Each ratio is a mean over six request streams that the search did not "
        "see. The published placements serve more with our links or our split of the flow; against the best of these "
        f"variants the ratios are {beside}. With the published scheduler in place of ours they are {unmodified}."
    )
    for cluster, row in ours.items():
        if row[9] != "none":
            text += f" On {PLACES[cluster]} mean latency is longer than the published plan's ({row[9]})."
    return text + " See [the pictures](docs/reproduction.md) and [the benchmark](docs/served-bench.md)."


def write_sentence(readme: Path, document: str) -> None:
    """Put the sentence between its two lines of the README."""
    before, _, rest = readme.read_text().partition(SENTENCE[0] + "\n")
    _, _, after = rest.partition(SENTENCE[1])
    text = textwrap.fill(sentence(document), 140, break_long_words=False, break_on_hyphens=False)
    readme.write_text(f"{before}{SENTENCE[0]}\n{text}\n{SENTENCE[1]}{after}")
