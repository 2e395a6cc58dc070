"""Measured profiles: two CSV files for each model, shipped in ``data/profiles`` or written by ``helix-kit profile``.

``layer_times.csv``: kind, phase (prefill | decode), tokens, ms_per_layer. ``limits.csv``: kind, num_layers,
kv_capacity_layer_tokens, prefill_max_requests, decode_max_requests. ``typical_layers.csv`` (in
``data/profiles``) holds the published starting points of the throughput estimate.

A shipped table belongs to a layer, not to a name: `measured_for` compares the sizes of a model's layer with those of
the presets that have tables.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from functools import cache
from pathlib import Path

from helix_kit import _files
from helix_kit.errors import InputError
from helix_kit.model import Model, preset_names
from helix_kit.profiles.profile import Profile

_COLUMNS = {
    "layer_times.csv": ("kind", "phase", "tokens", "ms_per_layer"),
    "limits.csv": (
        "kind",
        "num_layers",
        "kv_capacity_layer_tokens",
        "prefill_max_requests",
        "decode_max_requests",
    ),
}


def read_rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows of a CSV file. A missing column is an InputError."""
    try:
        rows = list(csv.DictReader(_files.read_text(path).splitlines()))
    except csv.Error as error:
        raise InputError(f"not valid CSV: {error}", where=path) from None
    missing = [c for c in columns if not rows or rows[0].get(c) is None]
    if missing:
        raise InputError(f"expected rows with the columns {', '.join(columns)}; missing {missing}", where=path)
    return rows


def _number(row: dict[str, str], column: str, where: str) -> float:
    try:
        value = float(row[column])
    except (TypeError, ValueError):
        raise InputError("expected a number", where=where, field=column, value=row.get(column)) from None
    if not math.isfinite(value):
        raise InputError("expected a finite number", where=where, field=column, value=row[column])
    return value


def _whole(row: dict[str, str], column: str, where: str) -> int:
    value = _number(row, column, where)
    if value != int(value) or value < 0:
        raise InputError("expected a whole number of at least 0", where=where, field=column, value=row[column])
    return int(value)


def load_profiles(folder: str | Path, model: str | None = None) -> dict[str, Profile]:
    """Read the measured profiles in a folder.

    Parameters
    ----------
    folder
        Holds ``layer_times.csv`` and ``limits.csv``, as ``helix-kit profile`` writes them.
    model
        Name of the model for the profiles. None: the folder's name.

    Returns
    -------
    dict of str to Profile
        By kind of machine.

    Raises
    ------
    InputError
        A file, column or value is missing or wrong. The message names file and line.

    Examples
    --------
    >>> from helix_kit._files import data_dir
    >>> sorted(load_profiles(data_dir() / "profiles" / "llama2-70b"))[:2]
    ['A100-40G', 'L4']
    """
    folder = Path(folder)
    model = model or folder.name
    times: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for line, row in enumerate(read_rows(folder / "layer_times.csv", _COLUMNS["layer_times.csv"]), start=2):
        where = f"{folder / 'layer_times.csv'}:{line}"
        if row["phase"] not in {"prefill", "decode"}:
            raise InputError("expected prefill or decode", where=where, field="phase", value=row["phase"])
        times[row["kind"], row["phase"]].append((_number(row, "tokens", where), _number(row, "ms_per_layer", where)))
    limits: dict[str, dict[int, tuple[int, int, int]]] = defaultdict(dict)
    for line, row in enumerate(read_rows(folder / "limits.csv", _COLUMNS["limits.csv"]), start=2):
        where = f"{folder / 'limits.csv'}:{line}"
        k, *values = (_whole(row, column, where) for column in _COLUMNS["limits.csv"][1:])
        limits[row["kind"]][k] = (values[0], values[1], values[2])
    profiles = {}
    for kind, by_k in limits.items():
        ks = sorted(by_k)
        if ks != list(range(1, len(ks) + 1)):
            raise InputError(f"{kind}: expected num_layers 1, 2, 3, ... without gaps, got {ks}", where=folder)
        for phase in ("prefill", "decode"):
            if (kind, phase) not in times:
                raise InputError(f"no {phase} times for {kind}", where=folder / "layer_times.csv")
        kv, prefill, decode = zip(*(by_k[k] for k in ks), strict=True)
        profiles[kind] = _files.validate(
            Profile,
            {
                "kind": kind,
                "model": model,
                "source": f"measured table {folder.name}",
                "prefill_ms_per_layer": _curve(times[kind, "prefill"]),
                "decode_ms_per_layer": _curve(times[kind, "decode"]),
                "kv_capacity_layer_tokens": kv,
                "prefill_max_requests": prefill,
                "decode_max_requests": decode,
            },
            folder,
        )
    return profiles


def _curve(points: list[tuple[float, float]]) -> dict[str, list[float]]:
    points = sorted({(0.0, 0.0), *points})
    return {"x": [x for x, _ in points], "y": [y for _, y in points]}


@cache
def _typical_layers(model: str) -> dict[str, dict[str, float]]:
    columns = ("model", "kind", "typical_layers", "initial_layer_tokens_per_s")
    rows = read_rows(_files.data_dir() / "profiles" / "typical_layers.csv", columns)
    return {
        row["kind"]: {column: float(row[column]) for column in columns[2:]} for row in rows if row["model"] == model
    }


@cache
def shipped_profiles(model: str) -> dict[str, Profile]:
    """Measured profiles that ship with the package, with the published starting points of the throughput estimate.

    Parameters
    ----------
    model
        Name of a model preset.

    Returns
    -------
    dict of str to Profile
        By kind of machine; empty when there are none for this model.

    Examples
    --------
    >>> shipped_profiles("a model that is not shipped")
    {}
    """
    folder = _files.data_dir() / "profiles" / model
    if not folder.is_dir():
        return {}
    typical = _typical_layers(model)
    return {
        kind: Profile.model_validate({**profile.model_dump(), **typical.get(kind, {})})
        for kind, profile in load_profiles(folder).items()
    }


def measured_for(model: Model) -> dict[str, Profile]:
    """The shipped profiles that were measured with the layer of `model`, whatever the model's name.

    Parameters
    ----------
    model
        Its layer is compared with those of the presets that have tables: hidden size, heads, MLP, vocabulary (whose
        embedding takes memory beside the layers), bytes of a weight, and weights of a layer.

    Returns
    -------
    dict of str to Profile
        By kind of machine; empty when no preset with tables has this layer.

    Examples
    --------
    >>> mine = Model.preset("llama2-70b").model_copy(update={"name": "mine"})
    >>> measured_for(mine)["T4"].source
    'measured table llama2-70b'
    >>> measured_for(mine.model_copy(update={"name": "llama2-70b", "intermediate_size": 11008}))
    {}
    """
    return next((shipped_profiles(p.name) for p in _presets_with_tables() if _is_same_layer(model, p)), {})


@cache
def _presets_with_tables() -> tuple[Model, ...]:
    folder = _files.data_dir() / "profiles"
    return tuple(Model.preset(name) for name in preset_names() if (folder / name).is_dir())


_LAYER_SIZES = (
    "hidden_size", "num_heads", "num_kv_heads", "head_dim", "intermediate_size", "mlp_matrices", "vocab_size",
    "dtype_bytes",
)  # fmt: skip


def _is_same_layer(model: Model, preset: Model) -> bool:
    if model.layer_kinds or any(getattr(model, size) != getattr(preset, size) for size in _LAYER_SIZES):
        return False
    # The paper's presets give a rounded figure for the layer; a config.json gives what the sizes make.
    from_sizes = Model(name=preset.name, num_layers=1, **{size: getattr(preset, size) for size in _LAYER_SIZES})
    return any(math.isclose(model.layer_gb, known.layer_gb) for known in (preset, from_sizes))
