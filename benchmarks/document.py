"""docs/runtime-bench.md, of which each benchmark of the runtime writes one section."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
from pathlib import Path

ORDER = ("Speed", "Simulated and real", "An hour under load")
HEAD = """# What the serving runtime does on one machine

Each section is written by the command that it names; a run replaces its own section. Read the ratios: seconds are
this machine's. The load is the machine's over the last minute of a run, the run's own part in it about 1 (speed) or 2.
"""


def facts(*packages: str) -> str:
    """Date, processor, versions and how busy the machine has been for the last minute, in one line."""
    from helix_kit.runtime.profile import device_name

    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    named = [datetime.datetime.now(datetime.UTC).date().isoformat(), device_name("cpu")]
    return ", ".join([*named, f"Python {platform.python_version()}", *versions, f"load {os.getloadavg()[0]:.1f}"])


def write_section(path: Path, title: str, text: str) -> None:
    """Put `text` under the heading `title` (one of ORDER), and leave the other sections as they are."""
    found = dict.fromkeys(ORDER, "")
    if path.exists():
        for part in re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            heading, _, body = part.partition("\n")
            found[heading.strip()] = body.strip()
    found[title] = text.strip()
    sections = [f"## {name}\n\n{body}\n" for name, body in found.items() if body]
    path.write_text("\n".join([HEAD, *sections]), encoding="utf-8")
