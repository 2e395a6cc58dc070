"""How a cluster is read: what a file may abbreviate, and the presets that ship with the package."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from pydantic import ValidationError

from helix_kit import _files
from helix_kit.cluster.fields import NAME_PATTERN
from helix_kit.cluster.machines import Node

OUR_FORM = (
    "expected YAML with name, nodes (such as {gpu: L4, count: 4}) and network; docs/guide/my-cluster.md has an example"
)
_FOREIGN = {
    r"\[\w+\]\s*\n": "an INI file, as the published artifact of Helix has them",
    r"(?:.*\n)*available_node_types\s*:": "a file of Ray's cluster launcher",
    r"(?:.*\n)*interconnects\s*:": "a cluster of splitwise-sim",
    r"\s*GPU0[\t ]+GPU1\b": "the matrix of `nvidia-smi topo -m`",
}
"""Pattern that a cluster file of another tool matches -> what the file is."""


def foreign_kind(text: str) -> str | None:
    """The tool whose cluster format a file has; None for any other content.

    >>> foreign_kind("[settings]\\nauto = 1\\n")
    'an INI file, as the published artifact of Helix has them'
    """
    body = "\n".join(line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", ";")))
    if re.search(r"^nodes\s*:", body, re.MULTILINE):
        return None
    return next((kind for pattern, kind in _FOREIGN.items() if re.match(pattern, body)), None)


class _Entry(Node):
    """An entry of a file's `nodes`: its fields are named where one is unknown."""

    count: int = 1


MAX_NODES = 100_000
"""Nodes of one entry at most: a typing error must not use up the machine's memory."""


def expand_counts(data: Any) -> Any:
    """Replace ``{gpu: L4, count: 3}`` by three named nodes, numbered by kind in file order."""
    if not isinstance(data, dict):
        return data
    coordinator = data.get("coordinator")
    if not isinstance(data.get("nodes"), list | tuple):
        # Without nodes there is no first node whose region could be taken: report one fault, not two.
        return {**data, "coordinator": coordinator or {"region": "local"}}
    default_region = coordinator.get("region") if isinstance(coordinator, dict) else None
    regions_named = any(n.get("region") is not None for n in data["nodes"] if isinstance(n, dict))
    nodes: list[Any] = []
    faults: list[str] = []
    seen: Counter[str] = Counter()
    for index, entry in enumerate(data["nodes"]):
        if not isinstance(entry, dict):
            nodes.append(entry)
            continue
        fields = dict(entry)
        count = fields.pop("count", 1)
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f"nodes[{index}].count = {count!r}: expected a whole number of at least 1")
        if count > MAX_NODES:
            raise ValueError(f"nodes[{index}].count = {count}: expected at most {MAX_NODES:,}")
        if "name" in fields and count > 1:
            raise ValueError(f"nodes[{index}]: a node with a `name` has `count: 1`, not {count}")
        if fields.get("region") is None:
            fields.pop("region", None)
            if regions_named:
                raise ValueError(f"nodes[{index}]: expected a `region`, since other nodes have one")
            if isinstance(default_region, str):
                fields["region"] = default_region
        stem = "node"
        try:
            # A fault in the GPU's name is one fault, not one more in each name that is made from it.
            kind = Node.model_validate({"name": f"{stem}-0", **fields}).kind
            stem = kind if re.fullmatch(NAME_PATTERN, kind) else stem
        except ValidationError as error:
            # Here the index is that of the file's entry. Once counts are expanded, it would be that of a node.
            faults += [f"nodes[{index}].{line}" for line in _files.problems_of(error, _Entry)]
        for _ in range(count):
            nodes.append({"name": f"{stem}-{seen[stem]}", **fields})
            seen[stem] += 1
    if faults:
        raise ValueError("; ".join(faults))
    region = next((n.get("region", "local") for n in nodes if isinstance(n, dict)), "local")
    if not (isinstance(region, str) and re.fullmatch(NAME_PATTERN, region)):
        region = "local"
    return {**data, "nodes": nodes, "coordinator": coordinator or {"region": region}}


def preset_names() -> list[str]:
    """Names that `Cluster.preset` accepts.

    Returns
    -------
    list of str
        Sorted.

    Examples
    --------
    >>> "single24" in preset_names()
    True
    """
    return sorted(path.stem for path in (_files.data_dir() / "clusters").glob("*.yaml"))


__all__ = ["preset_names"]
