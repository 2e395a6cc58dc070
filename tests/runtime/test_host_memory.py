"""The memory of a machine, read from a folder that stands for its root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helix_kit.runtime.host_memory import available_bytes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
MIB = 1 << 20


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def machine(root: Path, available_mib: int, cgroup: str) -> Path:
    write(root / "proc/meminfo", f"MemTotal: 999999999 kB\nMemFree: 1 kB\nMemAvailable:    {available_mib * 1024} kB\n")
    write(root / "proc/self/cgroup", cgroup)
    return root


def test_what_the_system_has(tmp_path: Path) -> None:
    assert available_bytes(machine(tmp_path, 700, "0::/user.slice/a.scope\n")) == 700 * MIB


def test_a_container_leaves_less(tmp_path: Path) -> None:
    root = machine(tmp_path, 700, "0::/user.slice/a.scope\n")
    group = root / "sys/fs/cgroup/user.slice"
    write(group / "memory.max", f"{500 * MIB}\n")
    write(group / "memory.current", f"{300 * MIB}\n")
    write(group / "memory.stat", f"anon {200 * MIB}\ninactive_file {50 * MIB}\n")
    assert available_bytes(root) == 250 * MIB  # what files take is given back when it is needed
    write(group / "a.scope/memory.max", "max\n")
    write(group / "a.scope/memory.current", f"{100 * MIB}\n")
    assert available_bytes(root) == 250 * MIB
    write(group / "a.scope/memory.max", f"{40 * MIB}\n")
    assert available_bytes(root) == 0


def test_the_older_interface(tmp_path: Path) -> None:
    root = machine(tmp_path, 700, "11:cpu,cpuacct:/x\n4:memory:/docker/1f\n")
    write(root / "sys/fs/cgroup/memory/memory.limit_in_bytes", f"{90 * MIB}\n")
    write(root / "sys/fs/cgroup/memory/memory.usage_in_bytes", f"{30 * MIB}\n")
    assert available_bytes(root) == 60 * MIB


def test_this_machine_and_a_limited_address_space() -> None:
    everything = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < (available_bytes() or 0) <= everything
    code = (
        "import resource; from helix_kit.runtime.host_memory import available_bytes as left;"
        "from pathlib import Path; kb = int(Path('/proc/self/statm').read_text().split()[0]) * 4096;"
        f"resource.setrlimit(resource.RLIMIT_AS, (kb + {64 * MIB},) * 2); print(left())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < float(done.stdout) <= 64 * MIB
