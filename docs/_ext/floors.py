"""Draws which part of the package imports which, from the code: the directive ``{floors} PACKAGE``.

A part stands above everything that it imports when it is loaded. Imports inside functions and for type checking are
not drawn. Only the imports that no longer path implies are drawn as lines; the text that appears over a box lists all.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import networkx as nx
from docutils import nodes
from docutils.parsers.rst import Directive

if TYPE_CHECKING:
    from sphinx.application import Sphinx

WIDTH, HEIGHT, BOX_HEIGHT, CHARACTER, PADDING, GAP = 860, 66, 30, 7.6, 20, 14
"""Pixels: the picture's width, heights of a floor and a box, widths of a character, a box's margins and a gap."""


def imported_modules(tree: ast.Module) -> set[str]:
    """Full names that a module imports when it is loaded."""
    found: set[str] = set()
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            stack.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        stack.extend(ast.iter_child_nodes(node))
    return found


def imports_between_parts(root: Path, package: str) -> nx.DiGraph:
    """Parts (folders and files directly in `package`) with an edge from each to the parts that it imports."""
    folder = root.joinpath(*package.split("."))
    parts = {p.stem for p in folder.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()} - {"__init__"}
    graph = nx.DiGraph()
    graph.add_nodes_from(sorted(parts))
    for path in sorted(folder.rglob("*.py")):
        part = path.relative_to(folder).parts[0].removesuffix(".py")
        for name in imported_modules(ast.parse(path.read_text(encoding="utf-8"))):
            other = name.removeprefix(f"{package}.").split(".")[0] if name.startswith(f"{package}.") else ""
            if part in parts and other in parts and other != part:
                graph.add_edge(part, other)
    return graph


def floors_of(graph: nx.DiGraph) -> list[list[str]]:
    """Parts by floor, lowest first; parts that import each other share a floor."""
    groups = nx.condensation(graph)
    height: dict[int, int] = {}
    for group in reversed(list(nx.topological_sort(groups))):
        height[group] = max((height[below] + 1 for below in groups.successors(group)), default=0)
    floors: dict[int, list[str]] = defaultdict(list)
    for group, data in groups.nodes(data=True):
        floors[height[group]] += sorted(data["members"])
    return [sorted(floors[level]) for level in sorted(floors)]


def drawn_edges(graph: nx.DiGraph) -> list[tuple[str, str]]:
    """The edges that no longer path implies; all edges where parts import each other."""
    if nx.is_directed_acyclic_graph(graph):
        return sorted(nx.transitive_reduction(graph).edges)
    return sorted(graph.edges)


def positions(graph: nx.DiGraph, floors: list[list[str]]) -> dict[str, tuple[float, float, float]]:
    """Part -> (centre x, centre y, width); on each floor, parts are ordered by the middle of what they import."""
    placed: dict[str, tuple[float, float, float]] = {}
    for level, floor in enumerate(floors):

        def middle(part: str) -> float:
            below = [placed[other][0] for other in graph.successors(part) if other in placed]
            return sum(below) / len(below) if below else WIDTH / 2

        ordered = sorted(floor, key=lambda part: (middle(part), part))
        widths = [len(part) * CHARACTER + PADDING for part in ordered]
        free = WIDTH - sum(widths)
        space = max(GAP, free / (len(ordered) + 1))
        x = (WIDTH - sum(widths) - space * (len(ordered) - 1)) / 2
        for part, width in zip(ordered, widths, strict=True):
            placed[part] = (x + width / 2, (len(floors) - 1 - level + 0.5) * HEIGHT, width)
            x += width + space
    return placed


def floors_svg(root: Path, package: str) -> str:
    """The picture as SVG, in the page's own text colour."""
    graph = imports_between_parts(root, package)
    floors = floors_of(graph)
    placed = positions(graph, floors)
    lines = [
        f'<svg class="floors" viewBox="0 0 {WIDTH} {len(floors) * HEIGHT}" width="{WIDTH}" role="img" '
        f'aria-label="Imports between the parts of {package}" xmlns="http://www.w3.org/2000/svg">',
        '<g stroke="currentColor" stroke-opacity="0.35" fill="none">',
    ]
    for part, other in drawn_edges(graph):
        (x0, y0, _), (x1, y1, _) = placed[part], placed[other]
        y0, y1 = y0 + BOX_HEIGHT / 2, y1 - BOX_HEIGHT / 2
        bend = (y1 - y0) / 2
        lines.append(
            f'<path d="M{x0:.0f} {y0:.0f} C{x0:.0f} {y0 + bend:.0f} {x1:.0f} {y1 - bend:.0f} {x1:.0f} {y1:.0f}"/>'
        )
    lines.append('</g><g font-family="monospace" font-size="12.5" text-anchor="middle" fill="currentColor">')
    for part, (x, y, width) in placed.items():
        below = ", ".join(sorted(graph.successors(part))) or "no other part"
        lines.append(
            f"<g><title>{escape(f'{part} imports {below}')}</title>"
            f'<rect x="{x - width / 2:.1f}" y="{y - BOX_HEIGHT / 2:.1f}" width="{width:.1f}" height="{BOX_HEIGHT}" '
            'rx="4" fill="var(--color-background-secondary, #f4f4f4)" stroke="currentColor" stroke-opacity="0.6"/>'
            f'<text x="{x:.1f}" y="{y + 4:.1f}">{escape(part)}</text></g>'
        )
    return "\n".join([*lines, "</g></svg>"])


class Floors(Directive):
    """``{floors} PACKAGE``: the picture of the package's parts."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The picture as raw HTML; other builders leave it out."""
        env = self.state.document.settings.env
        root = Path(env.srcdir).parent
        package = self.arguments[0]
        for path in root.joinpath(*package.split(".")).rglob("*.py"):
            env.note_dependency(str(path))
        return [nodes.raw("", floors_svg(root, package), format="html")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("floors", Floors)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
