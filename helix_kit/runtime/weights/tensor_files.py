"""Which safetensors files of a folder hold the model, and what their headers say. No tensor is read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from helix_kit import _files
from helix_kit.errors import InputError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")


class TensorHeader(NamedTuple):
    """What a file says about one tensor."""

    dtype: str
    """As safetensors calls it: F32, BF16, F8_E4M3, ..."""
    shape: tuple[int, ...]


def read_header(path: Path) -> dict[str, TensorHeader]:
    """The tensors in the safetensors file `path`; InputError when it is missing, cut off or of another format."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError("no such file", where=path)
    try:
        with safe_open(path, framework="numpy") as file:
            views = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            return {name: TensorHeader(v.get_dtype(), tuple(v.get_shape())) for name, v in views.items()}
    except SafetensorError as error:
        raise InputError(f"not a safetensors file: {error}", where=path) from None


def is_shard(file: str) -> bool:
    """Whether a file's name is that of one of several numbered files."""
    return _SHARD.fullmatch(file) is not None


def files_by_tensor(folder: Path) -> dict[str, Path]:
    """The file of each tensor of the model in `folder`; an empty mapping where there are no weights.

    As in transformers, model.safetensors wins, then the files that the index names. Without both, the numbered shards
    are taken, and without those all other safetensors files. Files beside them, such as other versions of the weights
    or adapters, are not read.

    Raises
    ------
    InputError
        When a file is missing or not in the format, or two files hold the same tensor.
    """
    whole, index = folder / WHOLE, folder / INDEX
    if whole.is_file():
        return dict.fromkeys(read_header(whole), whole)
    if index.is_file():
        return _files_of_index(folder, index)
    paths = sorted(folder.glob("*.safetensors"))
    shards = [path for path in paths if _SHARD.fullmatch(path.name)]
    if shards:
        paths = shards
        _check_all_there(folder, shards)
    return _by_tensor(paths)


def _files_of_index(folder: Path, index: Path) -> dict[str, Path]:
    content = _files.read_json(index)
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not all(isinstance(file, str) for file in names.values()):
        raise InputError("expected a mapping from tensors to files", where=index, field="weight_map")
    for file in sorted(set(names.values())):
        if Path(file).name != file:
            raise InputError("expected the name of a file in the same folder", where=index, value=file, field="file")
        if not (folder / file).is_file():
            raise InputError(f"no such file: {INDEX} says that it holds tensors", where=folder / file)
    return {name: folder / file for name, file in names.items()}


def _check_all_there(folder: Path, shards: Iterable[Path]) -> None:
    """Raise InputError when the shards' own numbers say that some are missing."""
    matches = [match for path in shards if (match := _SHARD.fullmatch(path.name))]
    counts = sorted({match[2] for match in matches})
    if len(counts) > 1:
        raise InputError(f"shards of several checkpoints: of {' and of '.join(counts)}; expected one", where=folder)
    there = {int(match[1]) for match in matches}
    missing = [number for number in range(1, int(counts[0]) + 1) if number not in there]
    if missing:
        raise InputError(
            "no such file: a shard is missing", where=folder / f"model-{missing[0]:05}-of-{counts[0]}.safetensors"
        )


def _by_tensor(paths: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        for name in read_header(path):
            if name in found:
                twice = f"tensor {name!r} stands in {found[name].name} and in {path.name}"
                raise InputError(f"{twice}: expected one {WHOLE} or an index", where=path.parent)
            found[name] = path
    return found
