"""A result is stale exactly if something that it depends on has changed."""

import subprocess
import sys

import pytest

from helix_kit.experiments.machinery import catalogue, digests

pytest.importorskip("matplotlib")


def test_digest_follows_imports_by_folder():
    trace = {
        p.relative_to(digests.PACKAGE).as_posix()
        for p in digests.sources_of("helix_kit.experiments.figures.trace", False)
    }
    assert "experiments/figures/trace.py" in trace and not any(p.startswith(("placement/", "plots/")) for p in trace)
    planning = {
        p.relative_to(digests.PACKAGE).as_posix()
        for p in digests.sources_of("helix_kit.experiments.figures.planning", False)
    }
    # The solver is chosen at run time, so the folder counts as a whole.
    assert {"placement/solvers/highs.py", "flow/network.py", "profiles/throughput.py"} <= planning
    assert not any(p.startswith(("runtime/", "widgets/", "cli/", "plots/")) for p in planning)
    drawn = {
        p.relative_to(digests.PACKAGE).as_posix()
        for p in digests.sources_of("helix_kit.experiments.figures.pictures.trace", True)
    }
    assert {"experiments/figures/pictures/trace.py", "plots/bars.py"} <= drawn
    assert "placement/solvers/highs.py" not in drawn


def _folders(name):
    """Folders and modules of the package whose change makes the experiment stale."""
    sources = digests.sources_of(catalogue.experiment_named(name).compute.__module__, False)
    return {p.relative_to(digests.PACKAGE).parts[0].removesuffix(".py") for p in sources}


@pytest.mark.parametrize(
    ("name", "folders"),
    [
        # Imports inside functions count, and so do the modules that `helix_kit` and `simulator` load at first use.
        ("own-plans", {"search", "simulator", "scheduling", "placement", "workload", "profiles", "flow"}),
        ("runtime-and-simulation", {"runtime", "simulator", "scheduling", "placement", "workload", "profiles"}),
        ("single-cluster", {"simulator", "scheduling", "placement", "workload", "profiles", "report"}),
        ("placement-deep-dive", {"simulator", "scheduling", "placement"}),
        ("equal-load", {"simulator", "scheduling", "placement", "workload"}),
        ("ablations", {"placement", "simulator", "flow"}),
        ("robustness", {"analysis", "placement", "profiles", "flow"}),
        ("scaling", {"placement", "profiles", "flow", "cluster", "model"}),
        ("convergence", {"placement", "profiles", "flow"}),
    ],
)
def test_digest_covers_every_folder_that_the_experiment_uses(name, folders):
    assert folders <= _folders(name)


def test_a_change_of_the_search_makes_our_plans_stale(monkeypatch):
    before = digests.code_digest("helix_kit.experiments.figures.own_plans")
    others = digests.code_digest("helix_kit.experiments.figures.planning")
    changed, plain = digests.PACKAGE / "search" / "__init__.py", digests.syntax_digest
    monkeypatch.setattr(digests, "syntax_digest", lambda path: "other" if path == changed else plain(path))
    assert digests.code_digest("helix_kit.experiments.figures.own_plans") != before
    assert digests.code_digest("helix_kit.experiments.figures.planning") == others


LOADED = """
import sys
from importlib import import_module
from pathlib import Path
from helix_kit.experiments.machinery.registry import Context
module, function, folder = sys.argv[1:]
getattr(import_module(module), function)(Context(fast=True, folder=Path(folder)))
print(" ".join({m.split(".")[1] for m in sys.modules if m.startswith("helix_kit.")}))
"""


@pytest.mark.parametrize("name", ["topology", "problem-sizes"])
def test_what_a_run_loads_is_in_its_digest(name, tmp_path):
    compute = catalogue.experiment_named(name).compute
    call = [sys.executable, "-c", LOADED, compute.__module__, compute.__name__, str(tmp_path)]
    used = set(subprocess.run(call, capture_output=True, text=True, check=True).stdout.split())
    # Pictures have a digest of their own.
    assert "placement" in used and used - {"experiments", "plots"} <= _folders(name)


def test_digest_of_a_source_ignores_comments_and_docstrings(tmp_path):
    texts = {
        "plain": "def f(x):\n    return x + 1\n",
        "commented": '"""A module."""\n\n\ndef f(x):\n    """More."""\n    # why\n    return (x + 1)\n',
        "changed": "def f(x):\n    return x + 2\n",
    }
    found = {}
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
        found[name] = digests.syntax_digest(tmp_path / f"{name}.py")
    assert found["plain"] == found["commented"] != found["changed"]


def test_digest_changes_with_a_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("1")
    before = digests.files_digest([path])
    path.write_text("2")
    assert digests.files_digest([path]) != before
