"""Imports point down the floors, and modules form no circle: every import counts, late and typing ones too."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import networkx as nx
import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "helix_kit"

FLOORS = [
    {"errors", "_deprecation", "_numba_cache", "_summary", "_versions", "_wording", "typical_request"},
    {"_files", "_line_workers", "layers"},
    {"_plugins", "catalogue", "hf_config", "hf_hub", "quantized"},
    {"cluster", "model"},
    {"profiles"},
    {"flow"},
    {"placement"},
    {"workload"},
    {"scheduling", "metrics"},
    {"_export", "_tool_formats"},
    {"report"},
    {"simulator", "runtime", "bench"},
    {"sweeps"},
    {"search"},
    {"planning", "export"},
    {"analysis"},
    {"fleets"},
    {"plots"},
    {"widgets"},
    {"experiments"},
    {"cli"},
    {"__main__"},
]
"""Folders and modules of the package from the lowest to the highest. Those of one floor do not import each other."""
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}

UPWARD = {
    ("helix_kit.placement.plan", "helix_kit.plots"): "drawing method: Plan.show, to_svg, to_png, pareto",
    ("helix_kit.placement.plan", "helix_kit.widgets"): "drawing method: Plan.show in a notebook",
    ("helix_kit.report.run", "helix_kit.plots"): "drawing method: Run.plot",
    ("helix_kit.analysis.compare", "helix_kit.plots"): "drawing method: Comparison.plot",
    ("helix_kit.sweeps.result", "helix_kit.plots"): "drawing method: Sweep.plot",
    ("helix_kit._tool_formats", "helix_kit.report"): "type annotation only: the functions write a Run",
    ("helix_kit._export", "helix_kit.report"): "type annotation only: the functions write a Run",
}
"""(importing module, imported folder) -> why this late import may point up."""


def name_of(path: Path) -> str:
    """Dotted name of a source file."""
    return ".".join(("helix_kit", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def floor_of(module: str) -> str:
    """Folder or module directly under the package, such as ``placement``."""
    return module.split(".")[1]


@cache
def imports_of(module: str) -> tuple[tuple[str, bool], ...]:
    """(imported module, whether it is imported when this one is) for each import statement of `module`."""
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, eager: bool) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            eager = False
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            eager = False
        if isinstance(node, ast.Import):
            found.extend((alias.name, eager) for alias in node.names if alias.name in MODULES)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            found.extend((origin(node.module or "", alias.name), eager) for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child, eager)

    visit(ast.parse(MODULES[module].read_text(encoding="utf-8")), True)
    return tuple((name, eager) for name, eager in found if name in MODULES and name not in {"helix_kit", module})


def origin(module: str, name: str) -> str:
    """The module that `name` comes from: a submodule, or the module from which a package takes the name."""
    if f"{module}.{name}" in MODULES:
        return f"{module}.{name}"
    path = MODULES.get(module)
    if path is not None and path.name == "__init__.py" and module != "helix_kit":
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and any(a.name == name for a in node.names):
                return origin(node.module, name)
    return module


def test_every_module_has_a_floor():
    assert {floor_of(m) for m in MODULES if m != "helix_kit"} == set(LEVEL)


def test_imports_point_down_only():
    """Late imports and imports for type annotations count as well; those that point up are listed with a reason."""
    wrong, used = [], set()
    for module in MODULES:
        if module == "helix_kit":
            continue
        here = floor_of(module)
        for target, eager in imports_of(module):
            there = floor_of(target)
            if there == here or LEVEL[there] < LEVEL[here]:
                continue
            key = (module, f"helix_kit.{there}")
            if key in UPWARD and not eager:
                used.add(key)
            else:
                wrong.append(f"{module} imports {target}")
    assert not wrong
    assert used == set(UPWARD), "a listed import is gone: take it off the list"


def test_no_circle_but_drawing_methods():
    """All imports together, late ones too, without those listed above, form no circle."""
    graph = nx.DiGraph()
    for module, path in MODULES.items():
        for target, _ in imports_of(module):
            listed = module != "helix_kit" and (module, f"helix_kit.{floor_of(target)}") in UPWARD
            # A package's __init__ stands for its submodules: what it takes from them is no dependency of its own.
            face = path.name == "__init__.py"
            if not listed and not face:
                graph.add_edge(module, target)
    circles = [sorted(c) for c in nx.strongly_connected_components(graph) if len(c) > 1]
    assert not circles


@pytest.mark.parametrize("name", ["import_module", "__import__"])
def test_modules_are_loaded_by_name_only_for_light_imports(name):
    """Loading by a string hides a dependency: only package faces do it, for names that they declare, and `_plugins`,
    for code that a user names."""
    allowed = {"helix_kit", "helix_kit._plugins", "helix_kit.experiments", "helix_kit.simulator", "helix_kit.widgets",
               "helix_kit.placement.solvers.solve",
               "helix_kit.runtime.launch.preload", "helix_kit.runtime.worker.flashinfer"}  # fmt: skip
    users = {module for module, path in MODULES.items() if f"{name}(" in path.read_text(encoding="utf-8")}
    assert users <= allowed
