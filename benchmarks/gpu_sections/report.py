"""The document and the JSON file: facts of the machine, targets, and the tables of every section."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gpu_sections.shared import Found

PACKAGES = ("torch", "triton", "transformers", "flashinfer-python", "numpy")
STEP_TARGETS = {1: 1.35, 8: 1.5, 32: 1.6, 64: 1.8}
"""Largest decode step over its memory floor, by batch."""


@dataclass
class Outcome:
    """What became of one section."""

    name: str
    status: str = "not run"
    """ok, failed or not run."""
    seconds: float = 0.0
    error: str = ""
    found: Found = field(default_factory=Found)


def machine_facts(device: str) -> dict[str, Any]:
    """The card, the versions and the date."""
    facts: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "python": platform.python_version()}
    if device == "cpu":
        facts["device"] = "a CPU"
    else:
        properties = torch.cuda.get_device_properties(device)
        facts["device"] = f"{properties.name}, {properties.total_memory / 1e9:.0f} GB"
        facts["capability"] = f"{properties.major}.{properties.minor}"
        facts["cuda"] = torch.version.cuda
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            facts[package] = importlib.metadata.version(package)
    return facts


def targets(found: dict[str, Found]) -> list[list[str]]:
    """Rows of what was measured, the target, and whether it is met; only of what was measured."""

    def get(section: str, *path: Any) -> Any:
        value: Any = found[section].data if section in found else None
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    rows: list[list[str]] = []

    def add(what: str, value: float | None, limit: float, *, at_least: bool, unit: str = "") -> None:
        if value is not None and not math.isnan(value):
            met = value >= limit if at_least else value <= limit
            sign = ">=" if at_least else "<="
            rows.append([what, f"{value:.2f}{unit}", f"{sign} {limit:g}{unit}", "yes" if met else "no"])

    for batch, limit in STEP_TARGETS.items():
        ratio = get("steps", "decode", batch, "ratio")
        add(f"decode step over its memory floor, batch {batch}", ratio, limit, at_least=False)
    ours, theirs = get("mixed", "output_tokens_per_s"), get("generate_batch", "output_tokens_per_s")
    if ours and theirs:
        add("mixed load over generate_batch", ours / theirs, 5.0, at_least=True)
    ours, theirs = get("batches", "long_prefill_tokens_per_s"), get("generate", "long_prefill_tokens_per_s")
    if ours and theirs:
        add("prefill of one long prompt over generate's", ours / theirs, 1.0, at_least=True)
    for rate, data in (found["open"].data if "open" in found else {}).items():
        add(f"open load, {rate} requests/s: ITL mean", data["ITL"]["mean_ms"], 8.5, at_least=False, unit=" ms")
        add(f"open load, {rate} requests/s: TTFT mean", data["TTFT"]["mean_ms"], 40.0, at_least=False, unit=" ms")
    add("two workers on the card over one, decode tokens/s", get("two_workers", "ratio"), 0.8, at_least=True)
    for name, pair in (found["closed_loop"].data if "closed_loop" in found else {}).items():
        if isinstance(pair, dict) and "simulated" in pair and "projection" not in name:
            ratio = pair["simulated"] / pair["served"]
            met = "yes" if abs(ratio - 1) <= 0.05 else "no"
            rows.append([f"simulated over served, {name}", f"{ratio:.3f}", "within 5 %", met])
    return rows


def document(facts: dict[str, Any], outcomes: list[Outcome], command: str) -> str:
    """The whole document in markdown."""
    about = ", ".join(f"{name} {facts[name]}" for name in ("python", "cuda", *PACKAGES) if name in facts)
    lines = ["# The runtime on a GPU", "", f"Written by `{command}` on {facts['device']}, {facts['date']}: {about}."]
    lines += [
        "Weights are random; the large model has the shape of Llama-3.1-8B unless the command says otherwise.",
        "",
    ]
    rows = targets({outcome.name: outcome.found for outcome in outcomes if outcome.found.data})
    if rows:
        lines += ["## Targets", "", "| | measured | target | met |", "|---|---:|---:|---|"]
        lines += ["| " + " | ".join(row) + " |" for row in rows] + [""]
    lines += ["## Sections", "", "| section | | seconds |", "|---|---|---:|"]
    for outcome in outcomes:
        why = f": {outcome.error}" if outcome.error else ""
        lines.append(f"| {outcome.name} | {outcome.status}{_one_line(why)} | {outcome.seconds:.0f} |")
    lines.append("")
    for outcome in outcomes:
        for table in outcome.found.tables:
            lines += table.markdown()
    return "\n".join(lines).rstrip() + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.replace("|", "/").split())[:300]


def as_json(facts: dict[str, Any], outcomes: list[Outcome]) -> str:
    """All numbers; values that are not finite become null."""
    sections = {
        outcome.name: {
            "status": outcome.status,
            "seconds": round(outcome.seconds, 2),
            "error": outcome.error,
            "wrong": outcome.found.wrong,
            "data": _finite(outcome.found.data),
        }
        for outcome in outcomes
    }
    return json.dumps({"facts": facts, "sections": sections}, indent=1) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write(output: Path | None, page: Path | None, facts: dict[str, Any], outcomes: list[Outcome], command: str) -> None:
    """Write what there is so far."""
    text = document(facts, outcomes, command)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "gpu-check.json").write_text(as_json(facts, outcomes), encoding="utf-8")
        (output / "gpu-bench.md").write_text(text, encoding="utf-8")
    if page is not None:
        page.write_text(text, encoding="utf-8")
