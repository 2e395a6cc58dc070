"""The files of a finished experiment: table, pictures, measurements and provenance, and how they are read.

``NAME.csv`` is the table, ``NAME.png`` and ``NAME.pdf`` are the picture, ``NAME.json`` is the provenance, and
``NAME-measured.csv`` holds what this machine measured, for the experiments whose picture shows measurements.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_kit.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

ENDINGS = ("csv", "png", "pdf")
"""Of the files that every finished experiment has, besides the provenance."""
FIGURES, FAST_FIGURES = Path("figures"), Path("figures/fast")
"""Where full and fast results go, relative to the current folder."""
CHECKOUT = Path(__file__).resolve().parents[3]
"""The folder that holds the package: in a checkout also ``figures/``, ``docs/`` and ``notebooks/``."""


def provenance(name: str, folder: Path) -> dict[str, Any]:
    """The provenance in ``folder/NAME.json``; empty if there is no such file or it cannot be read."""
    try:
        found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        return found
    except (OSError, json.JSONDecodeError):
        return {}


def load(name: str, folder: Path = FIGURES) -> pd.DataFrame:
    """Read the table of a finished experiment.

    Parameters
    ----------
    name
        The experiment.
    folder
        The folder with its files.

    Returns
    -------
    pandas.DataFrame
        The table as written. Its ``attrs`` hold what was measured, by the keys of `Context.measured`.

    Raises
    ------
    InputError
        If the folder has no table of that name.

    Examples
    --------
    >>> table = load("azure-trace", CHECKOUT / "figures")
    >>> list(table.columns)
    ['series', 'x', 'requests']
    """
    import pandas as pd

    path = folder / f"{name}.csv"
    if not path.is_file():
        raise InputError(f"run `helix-kit reproduce {name}` first: no such file", where=path)
    # Only empty cells are missing values: pandas would also read a method called "none" as missing.
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    table.attrs = provenance(name, folder).get("measured", {})
    return table


def is_complete(name: str, folder: Path) -> bool:
    """Whether the folder has the table and the pictures of the experiment."""
    return all((folder / f"{name}.{ending}").is_file() for ending in ENDINGS)


def measured_file(name: str, folder: Path) -> Path:
    """The path of the table of measurements, whether it exists or not."""
    return folder / f"{name}-measured.csv"


def check_folder(folder: Path, *, fast: bool) -> None:
    """Raise InputError if the folder holds full results and `fast` is set, or fast ones and it is not."""
    for path in sorted(folder.glob("*.json")):
        found = provenance(path.stem, folder).get("inputs", {}).get("fast", fast)
        if found != fast:
            kinds = ("fast", "full") if found else ("full", "fast")
            raise InputError(
                f"expected a folder without {kinds[0]} results for {kinds[1]} ones", where=path, field="inputs.fast",
                value=found,
            )  # fmt: skip
