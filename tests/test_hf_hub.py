"""Models on a hub by their config.json alone: it is fetched once for a commit, and errors are said in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

from stub_hub import COMMIT, StubHub, stub_hub

import helix_kit as hk
from helix_kit import hf_hub
from helix_kit.errors import InputError
from helix_kit.model import Model, load_model

NAME = "someone/tiny"
CONFIG = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6,
    "num_attention_heads": 4, "vocab_size": 100, "torch_dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StubHub]:
    """A hub with a config and a large file, and empty caches."""
    folder = tmp_path / "on the hub"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(b"\0" * 100_000)
    with stub_hub(folder, NAME) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HELIX_KIT_CACHE", str(tmp_path / "ours"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "theirs"))
        monkeypatch.chdir(tmp_path)
        yield running


def test_the_config_alone_is_fetched_and_kept(hub: StubHub, tmp_path: Path) -> None:
    model = load_model(NAME)
    assert model == Model.from_hf(hub.folder, name=NAME)
    assert [file for file, _ in hub.sent] == ["config.json"]
    assert Model.from_hf(f"{NAME}@main", name=NAME) == model
    hub.status = 500  # a commit that is kept needs no hub
    assert Model.from_hf(f"{NAME}@{COMMIT}", name=NAME) == model
    assert len(hub.sent) == 1
    assert (tmp_path / "ours" / "hub" / "someone--tiny" / COMMIT / "config.json").is_file()


def test_a_folder_wins_and_a_downloaded_model_is_read_where_it_lies(hub: StubHub, tmp_path: Path) -> None:
    there = tmp_path / "theirs" / "models--someone--tiny"
    (there / "snapshots" / COMMIT).mkdir(parents=True)
    (there / "refs").mkdir()
    (there / "refs" / "main").write_text(COMMIT)
    (there / "snapshots" / COMMIT / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": 7}))
    assert load_model(NAME).num_layers == 7
    folder = tmp_path / "someone" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": 8}))
    assert (load_model(NAME).num_layers, load_model(NAME).name) == (8, "tiny")
    assert hub.sent == []


def test_a_plan_for_a_model_on_a_hub(hub: StubHub, helix_kit, tmp_path: Path) -> None:
    (tmp_path / "home.yaml").write_text("name: home\nnodes: [{gpu: L4, count: 2}]\n")
    path = tmp_path / "plan.json"
    code, _, err = helix_kit("plan", "home.yaml", "--model", NAME, "--objective", "flow", "-o", path)
    assert code == 0, err
    assert hk.Plan.load(path).model == Model.from_hf(hub.folder, name=NAME)


@pytest.mark.parametrize(
    ("status", "message"),
    [(404, "neither a folder here nor a model at .* that you may read"), (500, "answers with 500.*hf download")],
)
def test_a_hub_that_does_not_give_it(hub: StubHub, status: int, message: str, monkeypatch, helix_kit) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between its tries
    hub.status = status
    with pytest.raises(InputError, match=message) as caught:
        load_model(NAME)
    assert caught.value.field == "model"


def test_no_hub(hub: StubHub, monkeypatch: pytest.MonkeyPatch, helix_kit) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    code, _, err = helix_kit("plan", "laptop", "--model", NAME)
    assert code == 2
    assert "cannot be reached" in err and f"hf download {NAME} config.json --local-dir FOLDER" in err
    assert "--model FOLDER" in err
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE says not to ask"):
        load_model(NAME)


def test_what_a_model_on_a_hub_must_have(hub: StubHub) -> None:
    (hub.folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"someone/tiny has no config.json"):
        load_model(NAME)


def test_without_the_hubs_library(hub: StubHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"needs huggingface_hub: pip install 'helix-kit\[runtime\]'"):
        load_model(NAME)


@pytest.mark.parametrize("text", ["a/b/c", "llama", "./a", "../a", "mine/config.json", "mine/model.yaml", "a b/c"])
def test_what_is_no_id(text: str) -> None:
    assert hf_hub.id_and_revision(text) is None
