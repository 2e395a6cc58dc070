"""Models on a Hugging Face hub: what their files say, without the weights.

The hub is that of `huggingface_hub`: its address (``HF_ENDPOINT``), its token and its settings hold here, too. A
description is fetched once for each commit, and kept in the cache folder.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from helix_kit import _files
from helix_kit.errors import InputError

_ID = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w.-]+))?", re.ASCII)
_NEEDED = "pip install 'helix-kit[runtime]'"


def id_and_revision(source: str | Path) -> tuple[str, str | None] | None:
    """What a model's id on a hub says.

    Parameters
    ----------
    source
        ``ORGANISATION/MODEL``, perhaps with ``@`` and a branch, tag or commit; or a path.

    Returns
    -------
    tuple or None
        The id and the revision, which may be None. None for what is no id.

    Examples
    --------
    >>> id_and_revision("Qwen/Qwen3-8B@main"), id_and_revision("a/b/c"), id_and_revision("mine/config.json")
    (('Qwen/Qwen3-8B', 'main'), None, None)
    """
    text = str(source)
    match = _ID.fullmatch(text)
    if match is None or text.endswith((".json", ".yaml", ".yml")) or text.startswith("."):
        return None
    return match[1], match[2]


def kept_folder(name: str) -> Path:
    """The folder in our cache for what is kept of a model, with a folder for each commit.

    Parameters
    ----------
    name
        The model's id.

    Returns
    -------
    Path
        It need not exist.

    Examples
    --------
    >>> kept_folder("someone/tiny").name
    'someone--tiny'
    """
    return _files.cache_dir() / "hub" / name.replace("/", "--")


def config_of(source: str | Path) -> Path | None:
    """The config.json of a model on a hub, fetched if need be.

    Parameters
    ----------
    source
        The model's id, perhaps with ``@`` and a revision.

    Returns
    -------
    Path or None
        A file in the cache of huggingface_hub or in ours. None for what is no id.

    Raises
    ------
    InputError
        When the hub cannot be reached, does not have the model, or does not give it.

    Examples
    --------
    >>> config_of("Qwen/Qwen3-8B")                                                            # doctest: +SKIP
    PosixPath('/home/me/.cache/helix_kit/hub/Qwen--Qwen3-8B/b968826d9c46dd6066d109eabc6255188de91218/config.json')
    """
    found = id_and_revision(source)
    if found is None:
        return None
    name, revision = found
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        expected = f"is no folder here, and a model on a hub needs huggingface_hub: {_NEEDED}"
        raise InputError(f"{name} {expected}", field="model") from None
    downloaded = try_to_load_from_cache(name, "config.json", revision=revision)
    if isinstance(downloaded, str):
        return Path(downloaded)
    base = kept_folder(name)
    if revision is not None and (base / revision / "config.json").is_file():  # a commit, whose files do not change
        return base / revision / "config.json"
    hub = HubModel(name, field="model")
    commit, files = hub.commit_of(revision)
    file = base / commit / "config.json"
    if not file.is_file():
        if file.name not in files:
            raise InputError(f"{name} has no config.json: expected a model of transformers", field="model")
        file.parent.mkdir(parents=True, exist_ok=True)
        _files.write_whole(file, hub.read(commit, file.name))
    return file


def _is_of_http(value: object) -> bool:
    """Whether a class is of httpx, or of its successor."""
    return any(kind.__module__.startswith("http") for kind in type(value).__mro__)


class HubModel:
    """One model on the hub.

    Parameters
    ----------
    name
        Its id.
    field
        Option that names it, for errors.

    Examples
    --------
    >>> HubModel("someone/tiny").name
    'someone/tiny'
    """

    def __init__(self, name: str, *, field: str = "weights") -> None:
        from huggingface_hub import constants

        self.name, self._field = name, field
        self._endpoint = os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")

    def commit_of(self, revision: str | None) -> tuple[str, list[str]]:
        """The commit of a branch or tag (None: the main one), and the names of its files."""
        content = json.loads(self.get(f"api/models/{self.name}/revision/{quote(revision or 'main', safe='')}"))
        return content["sha"], [file["rfilename"] for file in content["siblings"]]

    def read(self, commit: str, file: str, part: tuple[int, int] | None = None) -> bytes:
        """A file, or its bytes [begin, end)."""
        path = f"{self.name}/resolve/{commit}/{quote(file)}"
        if part is None:
            return self.get(path)
        begin, end = part
        content = self.get(path, {"Range": f"bytes={begin}-{end - 1}"})
        if len(content) > end - begin:  # a server that does not know ranges sends the whole file
            content = content[begin:end]
        if len(content) != end - begin:
            raise InputError(f"{file}: got {len(content)} bytes, expected {end - begin}", where=self.name)
        return content

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> bytes:
        """What the hub answers for a path; InputError, in words, for anything but success."""
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
        raise InputError(f"{self.name} {reason}", field=self._field)

    @property
    def _elsewhere(self) -> str:
        what = " config.json" if self._field == "model" else ""
        return (
            f"Run `hf download {self.name}{what} --local-dir FOLDER` on a machine that reaches it, and name the "
            f"folder: --{self._field} FOLDER"
        )


__all__ = ["HubModel", "config_of", "id_and_revision", "kept_folder"]
