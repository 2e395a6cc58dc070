"""Checkpoints on a hub: descriptions are fetched at once, and tensors when a worker asks for their layer.

A file of safetensors begins with a header that says where each tensor lies. So a worker fetches the bytes of its own
layers alone, out of shards that hold many. They are kept in the cache folder, a file for each layer, and the next start
reads them from there. A model that ``hf download`` has fetched whole is read where it lies.

The hub is that of `huggingface_hub`: its address (``HF_ENDPOINT``), its token and its settings hold here, too.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from helix_kit import _files
from helix_kit.errors import InputError
from helix_kit.runtime.weights.tensor_files import INDEX, WHOLE, TensorHeader, files_by_tensor, is_shard

PLACES = "hub.json"
"""Says of a folder in the cache where on the hub the tensors of its checkpoint lie."""
_ID = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w.-]+))?", re.ASCII)
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
    folder, match = Path(source), _ID.fullmatch(str(source))
    if folder.exists() or match is None:
        return folder
    name, revision = match[1], match[2]
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
    base = _files.cache_dir() / "hub" / name.replace("/", "--")
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
            _write(folder / file, hub.read(commit, file))
    places = hub.places(commit, files)
    content = {"model": name, "commit": commit, "tensors": {tensor: list(place) for tensor, place in places.items()}}
    _write(folder / PLACES, json.dumps(content).encode())  # last: a folder that has it is complete
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
        scratch = _scratch(path)
        with scratch.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for run in runs:
                for begin in range(run.begin, run.end, _CHUNK_BYTES):
                    chunk = (begin, min(begin + _CHUNK_BYTES, run.end))
                    file.write(self._hub.read(self._commit, run.file, chunk))
        scratch.replace(path)


def _is_of_http(thing: object) -> bool:
    """Whether a class is of httpx, or of its successor."""
    return any(kind.__module__.startswith("http") for kind in type(thing).__mro__)


def _part_of(tensor: str) -> str:
    """Tensors are fetched together with those of their layer, and the others one by one."""
    match = _LAYER.match(tensor)
    return match[0] if match else tensor


def _scratch(path: Path) -> Path:
    """Where a file is written before it takes its place: several workers may fetch the same one."""
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")


def _write(path: Path, content: bytes) -> None:
    scratch = _scratch(path)
    scratch.write_bytes(content)
    scratch.replace(path)


class _Hub:
    """One model on the hub."""

    def __init__(self, name: str) -> None:
        from huggingface_hub import constants

        self._name, self._endpoint = name, os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")

    def commit_of(self, revision: str | None) -> tuple[str, list[str]]:
        """The commit of a branch or tag (None: the main one), and the names of its files."""
        content = json.loads(self._get(f"api/models/{self._name}/revision/{quote(revision or 'main', safe='')}"))
        return content["sha"], [file["rfilename"] for file in content["siblings"]]

    def read(self, commit: str, file: str, part: tuple[int, int] | None = None) -> bytes:
        """A file, or its bytes [begin, end)."""
        path = f"{self._name}/resolve/{commit}/{quote(file)}"
        if part is None:
            return self._get(path)
        begin, end = part
        content = self._get(path, {"Range": f"bytes={begin}-{end - 1}"})
        if len(content) > end - begin:  # a server that does not know ranges sends the whole file
            content = content[begin:end]
        if len(content) != end - begin:
            raise InputError(f"{file}: got {len(content)} bytes, expected {end - begin}", where=self._name)
        return content

    def places(self, commit: str, files: list[str]) -> dict[str, Place]:
        """Where each tensor of the model lies; the files are chosen as in a folder."""
        if WHOLE in files:
            shards = [WHOLE]
        elif INDEX in files:
            shards = sorted(set(json.loads(self.read(commit, INDEX))["weight_map"].values()))
        else:
            shards = sorted(file for file in files if is_shard(file))
        if not shards:
            raise InputError("no *.safetensors file: expected weights in that format", where=self._name)
        places: dict[str, Place] = {}
        for file in shards:
            places |= self._places_in(commit, file)
        return places

    def _places_in(self, commit: str, file: str) -> dict[str, Place]:
        path, limit = f"{self._name}/resolve/{commit}/{quote(file)}", f"bytes=0-{_FIRST_BYTES - 1}"
        content = self._get(path, {"Range": limit})
        start = 8 + int.from_bytes(content[:8], "little")
        text = content[8:start] if len(content) >= start else self.read(commit, file, (8, start))
        try:
            header: Mapping[str, Any] = json.loads(text)
        except ValueError:
            raise InputError("not a safetensors file", where=f"{self._name}: {file}") from None
        return {
            name: Place(file, tensor["dtype"], tuple(tensor["shape"]), *(start + n for n in tensor["data_offsets"]))
            for name, tensor in header.items()
            if name != "__metadata__"
        }

    def _get(self, path: str, headers: Mapping[str, str] | None = None) -> bytes:
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status, http_backoff

        # Its HTTP library follows redirects only if it is asked to; that of its versions before 1.0 always does.
        follow: dict[str, Any] = {"follow_redirects": True} if _is_of_http(get_session()) else {}
        try:
            response = http_backoff(
                "GET", f"{self._endpoint}/{path}", headers={**build_hf_headers(), **(headers or {})},
                max_retries=2, **follow,
            )  # fmt: skip
            hf_raise_for_status(response)
            return response.content
        except GatedRepoError:
            reason = "is given only to those whom its owner has let in: ask for it there, then `hf auth login`"
        except OfflineModeIsEnabled:
            reason = f"is not in the cache, and HF_HUB_OFFLINE says not to ask the hub. {self._elsewhere}"
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status in (401, 403, 404):
                reason = f"is neither a folder here nor a model at {self._endpoint} that you may read ({status})"
            else:
                reason = f"cannot be fetched: {self._endpoint} answers with {status}. {self._elsewhere}"
        except Exception as error:  # of the HTTP library that huggingface_hub uses, which has changed before
            if not (_is_of_http(error) or isinstance(error, OSError)):
                raise
            problem = f"{self._endpoint} cannot be reached ({type(error).__name__})"
            reason = f"is neither a folder here nor in the cache, and {problem}. {self._elsewhere}"
        raise InputError(f"{self._name} {reason}", field="weights")

    @property
    def _elsewhere(self) -> str:
        return (
            f"Run `hf download {self._name} --local-dir FOLDER` on a machine that reaches it, and name the folder: "
            "--weights FOLDER"
        )
