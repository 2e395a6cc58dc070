"""The release: the version is the same everywhere, and wheel and sdist hold what an installed copy needs.

The quick test installs the wheel without its requirements, beside the packages that are here. The slow one installs
everything into an empty environment and runs the quickstart.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import helix_kit

NEEDED = (
    "py.typed",
    "data/README.md",
    "data/gpus.csv",
    "data/gpu_links.csv",
    "widgets/flow_graph.js",
    "widgets/flow_graph.css",
    "widgets/share/voila/templates/helix/index.html.j2",
    "notebooks/00_quickstart.ipynb",
    "notebooks/06_explore.ipynb",
)
"""Files of an installed package, beside its modules."""


@pytest.fixture(scope="module")
def packages(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that is built from it, without access to a network."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("needs hatchling, which builds the package")
    folder = tmp_path_factory.mktemp("dist")
    line = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(root)]
    done = subprocess.run(line, check=False, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(packages: Path) -> Path:
    return next(packages.glob("*.whl"))


def run(*line: object, folder: Path) -> str:
    """Standard output of a command, run in `folder` with no path to this checkout."""
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME"}}
    done = subprocess.run([str(part) for part in line], check=False, capture_output=True, text=True, cwd=folder,
                          env=environment)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_one_version_everywhere(root):
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    assert helix_kit.__version__ == version
    assert str(yaml.safe_load((root / "CITATION.cff").read_text())["version"]) == version
    newest = re.search(r"^## \[(\d[^\]]*)\]", (root / "CHANGELOG.md").read_text(), re.M)
    assert newest and newest[1] == version


def test_wheel_holds_data_and_widget_files(wheel, root):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"helix_kit/{name}" for name in NEEDED} <= names
    modules = {str(p.relative_to(root)) for p in (root / "helix_kit").rglob("*.py")}
    assert modules <= names
    presets = {f"helix_kit/{p.relative_to(root)}" for p in (root / "data").rglob("*.yaml")}
    assert presets and presets <= names
    assert not [n for n in names if n.startswith(("tests/", "docs/")) or "__pycache__" in n]


def test_sdist_holds_tests_and_documentation(packages):
    archive = next(packages.glob("*.tar.gz"))
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "data/README.md", "docs/conf.py",
            "tests/conftest.py", "notebooks/00_quickstart.ipynb", "Makefile", "constraints.txt"} <= names  # fmt: skip
    assert not [n for n in names if n.startswith(("docs/_build", "docs/notebooks/", "docs/reference/", ".venv"))]


def test_installed_wheel_plans_and_simulates_with_its_own_data(wheel, tmp_path):
    """The wheel alone, beside this environment's packages: nothing comes from the checkout."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", folder=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=tmp_path).strip())
    # The environment's packages come after the wheel, so that its editable install of the checkout is not used.
    packages = {p for p in sys.path if p.endswith("site-packages")}
    (site / "environment.pth").write_text("\n".join(sorted(packages)) + "\n")
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-index",
        "--target", site, wheel, folder=tmp_path)  # fmt: skip
    code = "from helix_kit import _files as f; print(f.data_dir(), f.notebook_path('00_quickstart.ipynb'))"
    where = run(python, "-c", code, folder=tmp_path)
    assert where.split() == [str(site / "helix_kit/data"), str(site / "helix_kit/notebooks/00_quickstart.ipynb")]
    cli = (python, "-m", "helix_kit.cli")
    plan = run(*cli, "plan", "single24", "--model", "llama2-70b", "--objective", "flow", "-o", "plan.json", "--json",
               folder=tmp_path)  # fmt: skip
    assert json.loads(plan)["flow_tokens_per_s"] == pytest.approx(2045.6, abs=0.1)
    run_summary = run(*cli, "simulate", "plan.json", "--rate", "0.5", "--duration", "60", "--json", folder=tmp_path)
    assert json.loads(run_summary)


@pytest.mark.slow
def test_quickstart_runs_from_the_wheel_in_an_empty_environment(wheel, root, tmp_path):
    """`pip install helix-kit[demo]` from the wheel, then the demo, in a folder that is not a checkout."""
    run(sys.executable, "-m", "venv", tmp_path / "venv", folder=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--constraint",
        root / "constraints.txt", f"helix-kit[demo] @ {wheel.as_uri()}", folder=tmp_path)  # fmt: skip
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    printed = run(python, "-m", "helix_kit.experiments.machinery.demo", folder=folder)
    assert "prompts answered" in printed
    assert (folder / "00_quickstart.ipynb").is_file()
