"""Statistics of a trace for the samplers: a joint histogram of lengths, and arrival counts per interval.

``python -m helix_kit.workload.fit TRACE.csv NAME`` writes ``data/workload/NAME_lengths.csv`` and
``NAME_arrivals.csv``. As in the paper, the conversation trace is cut to 2048 tokens in and 1024 out.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from pathlib import Path

import numpy as np

from helix_kit import _files
from helix_kit.workload.workload import Workload

INTERVAL_S = 3.0
"""Length of the intervals in which arrivals are counted, as in the paper's sampler."""
BIN_GROWTH = 0.06
"""A bin of lengths is as wide as 6 % of its lower end, and at least 4 tokens wide."""


def length_bins(longest: int) -> np.ndarray:
    """Lower ends of the bins, shape (bins + 1,). The last one lies beyond `longest`."""
    ends = [1]
    while ends[-1] <= longest:
        ends.append(ends[-1] + max(4, int(BIN_GROWTH * ends[-1])))
    return np.array(ends)


def length_histogram(workload: Workload) -> list[tuple[int, int, int, int, int]]:
    """Rows (input from, input below, output from, output below, requests) of the cells that hold requests."""
    inputs = np.array([r.input_tokens for r in workload])
    outputs = np.array([r.output_tokens for r in workload])
    in_bins, out_bins = length_bins(inputs.max()), length_bins(outputs.max())
    cells = Counter(zip(np.digitize(inputs, in_bins) - 1, np.digitize(outputs, out_bins) - 1, strict=True))
    return [
        (int(in_bins[i]), int(in_bins[i + 1]), int(out_bins[o]), int(out_bins[o + 1]), count)
        for (i, o), count in sorted(cells.items())
    ]


def arrival_counts(workload: Workload) -> list[int]:
    """Requests in each full interval since the first request."""
    arrivals = np.array([r.arrival_s for r in workload])
    counts = np.bincount(((arrivals - arrivals.min()) / INTERVAL_S).astype(int))
    return [int(c) for c in counts]


def main() -> None:
    """Write both files for a trace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace", type=Path)
    parser.add_argument("name")
    parser.add_argument("--max-input", type=int)
    parser.add_argument("--max-output", type=int)
    args = parser.parse_args()
    whole = Workload.from_trace(args.trace)
    kept = whole.limited(args.max_input, args.max_output)
    folder = _files.data_dir() / "workload"
    tables: list[tuple[str, list[str], list[tuple[int, ...]]]] = [
        (
            "lengths",
            ["input_from", "input_below", "output_from", "output_below", "requests"],
            [*length_histogram(kept)],
        ),
        ("arrivals", ["interval", "requests"], [*enumerate(arrival_counts(whole))]),
    ]
    for kind, header, rows in tables:
        with (folder / f"{args.name}_{kind}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)


if __name__ == "__main__":
    main()
