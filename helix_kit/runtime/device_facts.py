"""What a device says of itself: its name and its memory."""

from __future__ import annotations

from pathlib import Path


def device_name(device: str) -> str:
    """The name that the device reports."""
    if device == "cpu":
        import platform

        try:
            lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        except (OSError, StopIteration):
            return platform.processor() or platform.machine()
    import torch

    return torch.cuda.get_device_name(device)


def device_memory_gb(device: str) -> float:
    """Memory of the device in GB; for a CPU, half of the machine's, since other programs need memory, too."""
    if device == "cpu":
        import os

        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2e9
    import torch

    return torch.cuda.get_device_properties(device).total_memory / 1e9
