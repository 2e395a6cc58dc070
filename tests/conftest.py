"""Shared fixtures: small descriptions, and where reference data for independent checks may lie."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from helix_kit import Cluster, Model, Plan, Problem, cli
from helix_kit.placement.methods import METHODS

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("HELIX_KIT_SHARED", ROOT.parent / "shared"))

# The same examples every time: a red test must stay red for whoever looks at it.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
# Nor may tokens that nearly tie depend on times of this machine: workers take the layouts of matrices by their shapes.
os.environ.setdefault("HELIX_KIT_CPU_LAYOUTS", "shape")
# A shell that runs the tests in the background lets them ignore Ctrl-C, and every program that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with the published reference tables and real traces; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the reference data (set HELIX_KIT_SHARED to its folder)")
    return SHARED


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(autouse=True)
def _methods() -> Iterator[None]:
    """The table of placement methods as it was: what a test, or a page's example, registers is gone afterwards."""
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


@pytest.fixture(scope="session")
def overlapping_plan() -> Plan:
    """Four machines whose layer ranges overlap: V100-16G-0 must hand over to A10G-0 in the middle of its range.

    The two that hold the last layers, A10G-0 and T4-0, limit the flow; every link carries some, in three pipelines.
    """
    cluster = Cluster.model_validate(
        {
            "name": "four",
            "throughput": "published",
            "nodes": [{"gpu": "V100-16G"}, {"gpu": "A10G"}, {"gpu": "T4", "count": 2}],
        }
    )
    # Under a name without measured tables: the roofline estimate, which no new measurement changes.
    model = Model.preset("SmolLM2-135M").model_copy(update={"name": "tiny"})
    placement = {"V100-16G-0": (0, 18), "A10G-0": (12, 30), "T4-0": (18, 30), "T4-1": (0, 12)}
    return Plan.from_placement(Problem.of(cluster, model), placement, method="hand")


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder for code of a test; afterwards its modules and its place on the path are gone."""
    monkeypatch.chdir(tmp_path)
    # The folders of other tests' code, too, are taken off the path.
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p and not p.startswith(str(tmp_path.parent))])
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def helix_kit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Call the program in this process: returns (exit code, stdout, stderr)."""

    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["helix-kit", *map(str, args)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
