"""Models on a hub: each worker fetches the tensors of its layers once, and what cannot be fetched is said in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from greedy_tokens import greedy  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from stub_hub import COMMIT, StubHub, stub_hub  # noqa: E402

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.runtime import serve  # noqa: E402
from helix_kit.runtime.weights import hub as hubs  # noqa: E402
from helix_kit.runtime.weights.checkpoint import Checkpoint  # noqa: E402
from helix_kit.runtime.weights.tiny import tiny_checkpoint, tiny_plan  # noqa: E402

NAME = "someone/tiny"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in two files, whose layers are mixed: neither holds the tensors of a layer alone."""
    folder = tiny_checkpoint(tmp_path_factory.mktemp("hub") / "tiny", num_hidden_layers=4)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(sorted(tensors))}
    for file in set(places.values()):
        save_file({name: tensors[name] for name in tensors if places[name] == file}, folder / file, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


@pytest.fixture
def hub(sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StubHub]:
    """The hub that the process asks, with empty caches."""
    with stub_hub(sharded, NAME) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HELIX_KIT_CACHE", str(tmp_path / "ours"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "theirs"))
        yield running


def weight_bytes(folder: Path, prefix: str) -> int:
    tensors = {name: t for file in folder.glob("*.safetensors") for name, t in load_file(file).items()}
    return sum(t.numel() * t.itemsize for name, t in tensors.items() if name.startswith(prefix))


def test_only_the_layers_that_are_read_are_fetched(hub: StubHub, sharded: Path, monkeypatch) -> None:
    monkeypatch.setattr(hubs, "_FIRST_BYTES", 64)  # the header takes a second request
    monkeypatch.setattr(hubs, "_CHUNK_BYTES", 1000)
    checkpoint = Checkpoint(NAME)
    checkpoint.check_tensors()
    assert checkpoint.source == f"{NAME}@{COMMIT}"
    assert hub.bytes_of(".safetensors") < 8000  # headers alone
    before, local = hub.bytes_of(".safetensors"), Checkpoint(sharded)
    for index in (1, 3):
        ours, theirs = (c.read_layer(index, torch.float32, CPU) for c in (checkpoint, local))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    fetched = hub.bytes_of(".safetensors") - before
    assert fetched == sum(weight_bytes(sharded, f"model.layers.{index}.") for index in (1, 3))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")  # nothing listens there: the cache has it all
    again = Checkpoint(checkpoint.source)
    again.check_tensors()
    assert torch.equal(again.read_layer(3, torch.float32, CPU)["mlp.up_proj.weight"], ours["mlp.up_proj.weight"])
    assert hub.bytes_of(".safetensors") - before == fetched


def test_a_model_of_the_hub_is_served(hub: StubHub, sharded: Path) -> None:
    plan = tiny_plan(sharded, {"a": (0, 3), "b": (2, 4)})
    with serve(plan, NAME, launcher="inproc", pace=False) as engine:
        answer = engine.generate("w5 w6 w7", max_new_tokens=6, ignore_eos=True)
    assert answer.token_ids == greedy(sharded, [5, 6, 7], 6)
    folder = Checkpoint(NAME).folder
    assert {path.stem for path in folder.glob("*.safetensors")} == {
        *(f"model.layers.{index}" for index in range(4)),
        *("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"),
    }


def test_a_plan_for_a_model_of_the_hub_says_where_its_weights_are(hub: StubHub, sharded: Path) -> None:
    plan = tiny_plan(NAME, {"a": (0, 4)})
    with serve(plan, launcher="inproc", pace=False) as engine:
        answer = engine.generate("w5 w6 w7", max_new_tokens=3, ignore_eos=True)
    assert answer.token_ids == greedy(sharded, [5, 6, 7], 3)


def test_a_server_without_ranges(hub: StubHub, sharded: Path) -> None:
    hub.knows_ranges = False
    read = Checkpoint(NAME).read(["model.norm.weight"], None, CPU)
    assert torch.equal(
        read["model.norm.weight"], Checkpoint(sharded).read(["model.norm.weight"], None, CPU).popitem()[1]
    )


def test_one_file_without_an_index(tiny_llama: Path, hub: StubHub) -> None:
    hub.folder = tiny_llama
    checkpoint = Checkpoint(f"{NAME}@main")
    checkpoint.check_tensors()
    assert checkpoint.config["num_hidden_layers"] == 6


def test_a_model_that_was_downloaded_whole_is_read_where_it_lies(hub: StubHub, sharded: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "theirs" / "models--someone--tiny" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for file in sharded.iterdir():
        (snapshot / file.name).symlink_to(file)
    refs = tmp_path / "theirs" / "models--someone--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text(COMMIT)
    assert Checkpoint(NAME).folder == snapshot
    (snapshot / "model-00002-of-00002.safetensors").unlink()  # not whole: the rest comes from the hub
    assert Checkpoint(NAME).folder != snapshot
    assert hub.sent


@pytest.mark.parametrize(("status", "message"), [(404, "neither a folder here nor a model at"), (403, "may read")])
def test_a_hub_that_does_not_give_the_model(hub: StubHub, status: int, message: str) -> None:
    hub.status = status
    with pytest.raises(InputError, match=message):
        Checkpoint(NAME)


def test_no_hub(hub: StubHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between its tries
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(InputError, match=r"cannot be reached .*hf download someone/tiny --local-dir FOLDER") as caught:
        Checkpoint(NAME)
    assert caught.value.exit_code == 2
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE says not to ask"):
        Checkpoint(NAME)


def test_what_is_no_id_is_a_folder_that_is_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "none", "a/b/c", "none"):
        with pytest.raises(InputError, match="expected a folder"):
            Checkpoint(path)
