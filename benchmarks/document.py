"""What benchmarks of the runtime share: docs/runtime-bench.md, of which each writes one section, tables and files."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ORDER = ("Speed", "Speed beside older code", "Simulated and real", "An hour under load")
HEAD = """# What the serving runtime does on one machine

Each section is written by the command that it names; a run replaces its own section. Compare the ratios, since seconds
depend on the machine. The load is that of the machine over the last minute of a run, of which the run itself causes
about 1 (speed) or 2.
"""


def facts(*packages: str) -> str:
    """Date, processor, versions, and the load of the machine over the last minute, in one line."""
    from helix_kit.runtime.device_facts import device_name

    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    named = [datetime.datetime.now(datetime.UTC).date().isoformat(), device_name("cpu")]
    return ", ".join([*named, f"Python {platform.python_version()}", *versions, f"load {os.getloadavg()[0]:.1f}"])


def write_section(path: Path, title: str, text: str) -> None:
    """Write `text` under the heading `title` (one of ORDER), and leave the other sections unchanged."""
    sections = dict.fromkeys(ORDER, "")
    if path.exists():
        for part in re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            heading, _, body = part.partition("\n")
            sections[heading.strip()] = body.strip()
    sections[title] = text.strip()
    texts = [f"## {name}\n\n{body}\n" for name, body in sections.items() if body]
    path.write_text("\n".join([HEAD, *texts]), encoding="utf-8")


def latency_percentiles(summary: Mapping[str, Any]) -> dict[str, float]:
    """The median and the 95th percentile of both latencies in a run's summary, in s, by a readable name."""
    return {
        f"{phase} latency {quantile}, s": summary[f"{phase}_latency_s"][quantile]
        for phase in ("prompt", "decode")
        for quantile in ("p50", "p95")
    }


def ratio_table(pairs: Mapping[str, tuple[float, float]], simulated: str, real: str) -> list[str]:
    """A table of simulated and real values and their ratio; `simulated` and `real` head the columns."""
    return [
        f"| | {simulated} | {real} | real / simulated |",
        "|---|---:|---:|---:|",
        *(f"| {label} | {sim:.3f} | {got:.3f} | {got / sim:.3f} |" for label, (sim, got) in pairs.items()),
    ]


def write_json(path: Path | None, results: Any) -> None:
    """Write results as JSON, if a path is given."""
    if path is not None:
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
