"""The options that say which requests a plan is for, or is judged with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from helix_kit import _files
from helix_kit.errors import InputError
from helix_kit.typical_request import MAX_REQUEST_TOKENS

if TYPE_CHECKING:
    from helix_kit.typical_request import MeanLengths
    from helix_kit.workload import Workload


def name_or_trace(workload: str) -> str | Workload:
    """What ``--workload`` names: requests that are sampled, by their name, or those of a file.

    >>> name_or_trace("azure-conversation")
    'azure-conversation'
    """
    from helix_kit.workload.named import SAMPLED, SYNTHETIC
    from helix_kit.workload.workload import Workload

    if workload in SAMPLED or workload in SYNTHETIC or not _files.exists(workload):
        return workload
    return Workload.from_trace(workload)


def planned_lengths(
    trace: Path | None, workload: str | None, input_tokens: float | None, output_tokens: float | None
) -> Workload | MeanLengths | None:
    """What ``--trace``, ``--workload``, or ``--input-tokens`` and ``--output-tokens`` say; None where nothing is given.

    >>> planned_lengths(None, None, 500, 100)
    MeanLengths(input_tokens=500.0, output_tokens=100.0, source='given')
    """
    given = {
        "--trace": trace is not None,
        "--workload": workload is not None,
        "--input-tokens": input_tokens is not None or output_tokens is not None,
    }
    if sum(given.values()) > 1:
        names = " and ".join(name for name, is_given in given.items() if is_given)
        raise InputError(f"expected only one of {names}", field="--workload", value=workload)
    if not any(given.values()):
        return None
    from helix_kit.workload.lengths import workload_for

    if trace is not None:
        return workload_for(trace)
    if workload is not None:
        return workload_for(workload)
    for field, value in (("--input-tokens", input_tokens), ("--output-tokens", output_tokens)):
        if value is None or not 1 <= value <= MAX_REQUEST_TOKENS:
            both = f"expected a number from 1 to {MAX_REQUEST_TOKENS:,}, and both --input-tokens and --output-tokens"
            raise InputError(both, field=field, value=value)
    return workload_for((input_tokens or 0.0, output_tokens or 0.0))
