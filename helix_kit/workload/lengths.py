"""The lengths of the requests that a plan is for: their means, and a sample of (input, output) to simulate with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from helix_kit import _files
from helix_kit.errors import InputError
from helix_kit.typical_request import MeanLengths
from helix_kit.workload.named import SAMPLED, SYNTHETIC
from helix_kit.workload.workload import Workload

SAMPLE_SIZE = 2000
"""Pairs of lengths that are kept of a workload to simulate with. They are sent to each worker process."""
DRAWN = 20_000
"""Requests drawn for the means of a sampled workload: the standard error of a mean is then below 1 %."""

LengthPairs = tuple[tuple[int, int], ...]
"""(input tokens, output tokens) of requests."""
PlannedFor = Workload | MeanLengths | tuple[float, float] | str | Path
"""What `helix_kit.plan` accepts as its workload."""


def workload_for(planned_for: PlannedFor) -> Workload | MeanLengths:
    """The requests, or their mean lengths, that a user plans for.

    Parameters
    ----------
    planned_for
        A workload, mean lengths, a pair (input tokens, output tokens), the name of a sampled workload, or a trace file.

    Returns
    -------
    Workload or MeanLengths
        Mean lengths where nothing else is known.

    Raises
    ------
    InputError
        There is no such name or file, the workload is empty, or a length is below 1.

    Examples
    --------
    >>> workload_for((1000, 20))
    MeanLengths(input_tokens=1000.0, output_tokens=20.0, source='given')
    >>> len(workload_for("azure-code")) > 1000
    True
    """
    if isinstance(planned_for, Workload | MeanLengths):
        return planned_for
    if isinstance(planned_for, tuple):
        try:
            return MeanLengths(*planned_for)
        except (TypeError, ValueError) as error:
            raise InputError(f"expected two lengths of at least 1 token ({error})", field="workload",
                             value=planned_for) from None  # fmt: skip
    name = str(planned_for)
    if name in SAMPLED or name in SYNTHETIC:
        like = name if name in SAMPLED else "azure-conversation"
        return Workload(Workload.offline(DRAWN, like=like).requests, name)
    if Path(name).suffix not in {".csv", ".jsonl", ".json"} and not _files.exists(name):
        known = _files.unknown("workload", name, [*SAMPLED, *SYNTHETIC])
        raise InputError(f"{known}, or a trace file (.csv, .jsonl)", field="workload")
    return Workload.from_trace(name)


def mean_lengths(workload: Workload | MeanLengths) -> MeanLengths:
    """The mean lengths of a workload's requests.

    Parameters
    ----------
    workload
        At least one request, or means, which are returned as they are.

    Returns
    -------
    MeanLengths
        With the workload's source.

    Raises
    ------
    InputError
        The workload is empty.

    Examples
    --------
    >>> mean_lengths(Workload.of([(0.0, 100, 10), (1.0, 300, 30)], "two requests"))
    MeanLengths(input_tokens=200.0, output_tokens=20.0, source='two requests')
    """
    if isinstance(workload, MeanLengths):
        return workload
    if not len(workload):
        raise InputError("expected at least one request, the workload is empty", field="workload")
    pairs = np.array([(r.input_tokens, r.output_tokens) for r in workload], dtype=float)
    input_tokens, output_tokens = pairs.mean(axis=0).tolist()
    return MeanLengths(input_tokens, output_tokens, workload.source)


def length_pairs(workload: Workload | MeanLengths) -> LengthPairs:
    """Lengths to simulate with: up to `SAMPLE_SIZE` of a workload, evenly over its order, or one pair of means.

    Parameters
    ----------
    workload
        At least one request, or means.

    Returns
    -------
    tuple of (int, int)
        Input and output tokens.

    Examples
    --------
    >>> length_pairs(MeanLengths(99.6, 10.2))
    ((100, 10),)
    """
    if isinstance(workload, MeanLengths):
        return ((round(workload.input_tokens), round(workload.output_tokens)),)
    chosen: Sequence[int] = range(len(workload))
    if len(workload) > SAMPLE_SIZE:
        chosen = np.linspace(0, len(workload) - 1, SAMPLE_SIZE).round().astype(int).tolist()
    return tuple((workload.requests[i].input_tokens, workload.requests[i].output_tokens) for i in chosen)


__all__ = ["LengthPairs", "PlannedFor", "length_pairs", "mean_lengths", "workload_for"]
