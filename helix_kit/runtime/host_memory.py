"""How much memory this process may still take of the machine it runs on.

The least of three figures counts: what the system has available, what the control groups of the process leave (those of
a container, for example), and what the limit of its address space leaves (``ulimit -v``).
"""

from __future__ import annotations

import os
from pathlib import Path


def available_bytes(root: Path = Path("/")) -> float | None:
    """Bytes of memory that this process may still take; None where the system does not say.

    `root` is the folder in which ``proc`` and ``sys`` lie.
    """
    left = [_system_bytes(root), _address_space_bytes(root), *_control_group_bytes(root)]
    known = [value for value in left if value is not None]
    return max(0.0, min(known)) if known else None


def _system_bytes(root: Path) -> float | None:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return float(line.split()[1]) * 1024
    try:  # macOS says only how much memory there is in all; half of it is assumed to be in use.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    except (AttributeError, OSError, ValueError):
        return None


def _control_group_bytes(root: Path) -> list[float]:
    """What each control group of this process that has a limit leaves, in version 2 or 1 of their interface."""
    left = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, limit, usage, reclaimable = "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base, limit, usage = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            reclaimable = "total_inactive_file"
        else:
            continue
        # A limit of an outer group holds for the groups inside it. In a container the path may lie outside of what the
        # container sees; its own group is then the base folder.
        group = root / base / path.strip("/")
        for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(root / base))):
            allowed, used = _number(folder / limit), _number(folder / usage)
            if allowed is not None and used is not None:
                left.append(allowed - used + _field(folder / "memory.stat", reclaimable))
    return left


def _address_space_bytes(root: Path) -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    sizes = _lines(root / "proc/self/statm")
    if limit == resource.RLIM_INFINITY or not sizes:
        return None
    return float(limit - int(sizes[0].split()[0]) * os.sysconf("SC_PAGE_SIZE"))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _number(path: Path) -> float | None:
    """The number in a file; None for a missing file or the word ``max``."""
    text = "".join(_lines(path)).strip()
    return float(text) if text.isdigit() else None


def _field(path: Path, name: str) -> float:
    return next((float(line.split()[1]) for line in _lines(path) if line.startswith(f"{name} ")), 0.0)
