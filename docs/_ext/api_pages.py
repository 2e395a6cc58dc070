"""Writes the API reference: a page for each module with an `__all__` that describes the names in it.

A name that several modules export is described once, where the import path is shortest. In docstrings, text in single
backquotes becomes a link if it names something in the reference, and code otherwise.
"""

from __future__ import annotations

import ast
import importlib
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from pages import remove_others, write_page
from sphinx.addnodes import pending_xref

if TYPE_CHECKING:
    from sphinx.application import Sphinx

LINKS: dict[str, str] = {}
"""What may stand in single backquotes -> the full name of its page; filled when the pages are written."""

INHERITED = {"Engine": "Summarised"}
"""Classes that have a part of their methods from a base without a page, which are described with their own -> the base
from which on they are not."""

INDEX = """# API reference

One page for each module that other code may import from; the names are those in its `__all__`. Everything else is
internal and may change without notice. The names most programs need are in [helix_kit](helix_kit.rst).

```{{toctree}}
:maxdepth: 1

{modules}
```
"""


def exporting_modules(package: Path) -> list[str]:
    """Modules with an `__all__`, read from their text, shortest path first."""
    found = []
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        targets = [t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets]
        if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
            found.append(".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__"))
    return sorted(found, key=lambda name: (name.count("."), name))


def identity(value: Any, module: str, name: str) -> tuple[str, str]:
    """Where a class or function is defined; other values (numbers, tables) belong to the module that exports them."""
    if isinstance(value, type) or callable(value):
        return getattr(value, "__module__", module), getattr(value, "__qualname__", name)
    return module, name


def exported(package: Path) -> dict[str, list[tuple[str, str | None]]]:
    """Module -> its names, each with the full name under which it is described elsewhere (None: here)."""
    described: dict[tuple[str, str], str] = {}
    result = {}
    for module in exporting_modules(package):
        names = []
        imported = importlib.import_module(module)
        for name in sorted(imported.__all__, key=str.lower):
            if name.startswith("__"):
                continue
            key = identity(getattr(imported, name), module, name)
            names.append((name, described.get(key)))
            described.setdefault(key, f"{module}.{name}")
        result[module] = names
    return result


def directive(module: str, name: str, value: Any) -> list[str]:
    """The lines that describe a value; a type alias such as ``tuple[str, str]`` is shown as it is written."""
    if isinstance(value, types.GenericAlias | types.UnionType) or typing.get_origin(value) is not None:
        return [f".. py:data:: {module}.{name}", f"   :value: {value}", ""]
    if isinstance(value, type):
        kind = "exception" if issubclass(value, BaseException) else "class"
        options = ["   :members:", "   :show-inheritance:"]
        if name in INHERITED:
            options.append(f"   :inherited-members: {INHERITED[name]}")
        return [f".. auto{kind}:: {module}.{name}", *options, ""]
    return [f".. auto{'function' if callable(value) else 'data'}:: {module}.{name}", ""]


def module_page(module: str, names: list[tuple[str, str | None]]) -> str:
    """reStructuredText of a module's page: its docstring, a table of its names, then each of them."""
    imported = importlib.import_module(module)
    own = {name: directive(module, name, getattr(imported, name)) for name, elsewhere in names if elsewhere is None}
    tabled = [f"   {name}" for name, lines in own.items() if "data::" not in lines[0]]
    others = [f"- :py:obj:`{name} <{full}>`" for name, full in names if full is not None]
    lines = [module, "=" * len(module), "", f".. automodule:: {module}", "   :no-members:", ""]
    if tabled:
        lines += [".. autosummary::", "   :nosignatures:", "", *tabled, ""]
    if others:
        lines += ["Also exported here:", "", *others, ""]
    for described in own.values():
        lines += described
    return "\n".join(lines)


def write_api_pages(app: Sphinx, config: object) -> None:
    """Write the pages before Sphinx looks for pages."""
    docs = Path(app.srcdir)
    folder = docs / "reference" / "api"
    modules = exported(docs.parent / "helix_kit")
    written = set()
    for module, names in modules.items():
        path = folder / f"{module}.rst"
        write_page(path, module_page(module, names))
        written.add(path)
    remove_others(folder, "*.rst", written)
    write_page(folder / "index.md", INDEX.format(modules="\n".join(modules)))
    LINKS.clear()
    LINKS.update(links_by_name({f"{m}.{n}" for m, names in modules.items() for n, full in names if full is None}))


def links_by_name(described: set[str]) -> dict[str, str]:
    """What may stand in backquotes -> full name: full names, and last names that only one thing has."""
    short: dict[str, list[str]] = {}
    for full in described:
        short.setdefault(full.rpartition(".")[2], []).append(full)
    links = {name: found[0] for name, found in short.items() if len(found) == 1}
    return {**links, **{full: full for full in described}}


def code_or_link(
    name: str, rawtext: str, text: str, lineno: int, inliner: Any, options: Any = None, content: Any = ()
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """The role of text in single backquotes."""
    env = inliner.document.settings.env
    literal = nodes.literal(rawtext, text, classes=["xref", "py"])
    target = LINKS.get(text.removesuffix("()"))
    if target is None:
        return [nodes.literal(rawtext, text)], []
    link = pending_xref(rawtext, literal, refdomain="py", reftype="obj", reftarget=target, refdoc=env.docname)
    link["refexplicit"] = True
    return [link], []


def ignore_internal_types(app: Sphinx, env: Any, node: pending_xref, content: nodes.Element) -> nodes.Node | None:
    """Signatures name types that have no page here (internal ones, other packages'): these stay text, no warning."""
    if node.get("refdomain") == "py" and node.get("refdoc", "").startswith("reference/api/"):
        return content
    return None


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the writer, the role and the check."""
    from docutils.parsers.rst import roles

    roles.register_local_role("code_or_link", code_or_link)
    app.config.default_role = "code_or_link"
    app.connect("config-inited", write_api_pages)
    app.connect("missing-reference", ignore_internal_types, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
