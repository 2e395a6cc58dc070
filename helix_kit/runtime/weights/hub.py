"""Checkpoints on a hub: descriptions are fetched at once, and tensors when a worker asks for their layer.

A file of safetensors begins with a header that says where each tensor lies. So a worker fetches the bytes of its own
layers alone, out of shards that hold many. They are kept in the cache folder, a file for each layer, and the next start
reads them from there. A model that ``hf download`` has fetched whole is read where it lies.

The hub is that of `huggingface_hub`: its address (``HF_ENDPOINT``), its token and its settings hold here, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from helix_kit import _files
from helix_kit.errors import InputError
from helix_kit.hf_hub import HubModel, id_and_revision, kept_folder
from helix_kit.runtime.weights.tensor_files import INDEX, WHOLE, TensorHeader, files_by_tensor, is_shard

PLACES = "hub.json"
"""Says of a folder in the cache where on the hub the tensors of its checkpoint lie."""
_DESCRIPTIONS = ("*config.json", "tokenizer*", "*token*.json", "vocab.json", "merges.txt", "*.jinja")
_LAYER = re.compile(r"model\.layers\.\d+")
_FIRST_BYTES = 1 << 17
"""How much of a file is asked for to find its header; a longer one takes a second request."""
_CHUNK_BYTES = 1 << 26
"""How much is asked for at once, and is in memory meanwhile."""


class Place(NamedTuple):
    """Where a tensor lies on the hub."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
    """Its bytes in the file are [begin, end)."""


def local_folder(source: str | Path) -> Path:
    """The folder of a checkpoint: `source` itself, or where the model with this id on the hub is kept.

    Parameters
    ----------
    source
        A folder, or ``ORGANISATION/MODEL``, perhaps with ``@`` and a branch, tag or commit. A folder wins.

    Returns
    -------
    Path
        Where `source` is neither, the path that it would be.

    Raises
    ------
    InputError
        When the model is not in the cache and the hub cannot be reached, does not have it, or does not give it.
    """
    folder, found = Path(source), id_and_revision(source)
    if folder.exists() or found is None:
        return folder
    name, revision = found
    return _downloaded(name, revision) or _described(name, revision)


def _downloaded(name: str, revision: str | None) -> Path | None:
    """The folder in huggingface_hub's own cache, if the whole model is there."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
        return folder if (folder / "config.json").is_file() and files_by_tensor(folder) else None
    except (OSError, ValueError, InputError):
        return None


def _described(name: str, revision: str | None) -> Path:
    """The folder in our cache, with the model's descriptions and the places of its tensors."""
    base = kept_folder(name)
    if revision is not None and (base / revision / PLACES).is_file():  # a commit, whose files do not change
        return base / revision
    hub = _Hub(name)
    commit, files = hub.commit_of(revision)
    folder = base / commit
    if (folder / PLACES).is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        if "/" not in file and any(Path(file).match(pattern) for pattern in _DESCRIPTIONS):
            _files.write_whole(folder / file, hub.read(commit, file))
    places = hub.places(commit, files)
    content = {"model": name, "commit": commit, "tensors": {tensor: list(place) for tensor, place in places.items()}}
    _files.write_whole(folder / PLACES, json.dumps(content).encode())  # last: a folder that has it is complete
    return folder


class HubFiles:
    """The tensors of a checkpoint on the hub, those that are here and those that are not."""

    def __init__(self, folder: Path) -> None:
        content = _files.read_json(folder / PLACES)
        self._folder, self._hub, self._commit = folder, _Hub(content["model"]), content["commit"]
        self.source = f"{content['model']}@{content['commit']}"
        """What names the checkpoint on any machine."""
        self._places = {name: Place(f, d, tuple(s), b, e) for name, (f, d, s, b, e) in content["tensors"].items()}

    @classmethod
    def of(cls, folder: Path) -> HubFiles | None:
        """Those of a folder in the cache; None for any other folder."""
        return cls(folder) if (folder / PLACES).is_file() else None

    @property
    def files_by_tensor(self) -> dict[str, Path]:
        """The file in the folder where each tensor is, or will be when it has been fetched."""
        return {name: self._folder / f"{_part_of(name)}.safetensors" for name in self._places}

    def header(self, path: Path) -> dict[str, TensorHeader]:
        """The tensors of a file in the folder, which need not be there."""
        return {name: TensorHeader(self._places[name].dtype, self._places[name].shape) for name in self._names(path)}

    def _names(self, path: Path) -> list[str]:
        return [name for name in self._places if _part_of(name) == path.stem]

    def fetch(self, paths: Iterable[Path]) -> None:
        """Fetch those of the files that are not in the folder."""
        for path in paths:
            if not path.is_file():
                self._fetch(path)

    def _fetch(self, path: Path) -> None:
        names = sorted(self._names(path), key=lambda name: self._places[name][::3])
        header, length, runs = {}, 0, []  # type: tuple[dict[str, Any], int, list[Place]]
        for name in names:
            place = self._places[name]
            size = place.end - place.begin
            header[name] = {"dtype": place.dtype, "shape": place.shape, "data_offsets": [length, length + size]}
            length += size
            if runs and (runs[-1].file, runs[-1].end) == (place.file, place.begin):
                runs[-1] = runs[-1]._replace(end=place.end)
            else:
                runs.append(place)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        scratch = _files.scratch_of(path)
        with scratch.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for run in runs:
                for begin in range(run.begin, run.end, _CHUNK_BYTES):
                    chunk = (begin, min(begin + _CHUNK_BYTES, run.end))
                    file.write(self._hub.read(self._commit, run.file, chunk))
        scratch.replace(path)


def _part_of(tensor: str) -> str:
    """Tensors are fetched together with those of their layer, and the others one by one."""
    match = _LAYER.match(tensor)
    return match[0] if match else tensor


class _Hub(HubModel):
    """One model on the hub, and where its tensors lie."""

    def places(self, commit: str, files: list[str]) -> dict[str, Place]:
        """Where each tensor of the model lies; the files are chosen as in a folder."""
        if WHOLE in files:
            shards = [WHOLE]
        elif INDEX in files:
            shards = sorted(set(json.loads(self.read(commit, INDEX))["weight_map"].values()))
        else:
            shards = sorted(file for file in files if is_shard(file))
        if not shards:
            raise InputError("no *.safetensors file: expected weights in that format", where=self.name)
        places: dict[str, Place] = {}
        for file in shards:
            places |= self._places_in(commit, file)
        return places

    def _places_in(self, commit: str, file: str) -> dict[str, Place]:
        path, limit = f"{self.name}/resolve/{commit}/{quote(file)}", f"bytes=0-{_FIRST_BYTES - 1}"
        content = self.get(path, {"Range": limit})
        start = 8 + int.from_bytes(content[:8], "little")
        text = content[8:start] if len(content) >= start else self.read(commit, file, (8, start))
        try:
            header: Mapping[str, Any] = json.loads(text)
        except ValueError:
            raise InputError("not a safetensors file", where=f"{self.name}: {file}") from None
        return {
            name: Place(file, tensor["dtype"], tuple(tensor["shape"]), *(start + n for n in tensor["data_offsets"]))
            for name, tensor in header.items()
            if name != "__metadata__"
        }
