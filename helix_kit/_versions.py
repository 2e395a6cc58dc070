"""Versions of the packages that make a plan, for its file."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def package_versions() -> dict[str, str]:
    """Name -> version of the packages that a plan may depend on."""
    names = ("helix-kit", "networkx", "pyomo", "highspy", "numpy")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
