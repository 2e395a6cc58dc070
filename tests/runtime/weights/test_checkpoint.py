"""Folders that are no checkpoints, model families that are refused, and tensors that do not fit the config."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from low_bit_checkpoints import low_bit_checkpoint  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoConfig, LlamaConfig  # noqa: E402

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.runtime.weights import checkpoint as checkpoints  # noqa: E402
from helix_kit.runtime.weights.checkpoint import Checkpoint, check_family  # noqa: E402
from helix_kit.runtime.weights.tiny import tiny_checkpoint  # noqa: E402


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a folder"):
        Checkpoint(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(InputError, match=r"no \*\.safetensors"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("family", ["deepseek_v3", "glm4_moe", "gemma3", "gpt2", None, 7])
def test_other_families_are_refused_by_name(family: object) -> None:
    with pytest.raises(InputError, match="expected one of cohere2") as caught:
        check_family({"model_type": family}, "config.json")
    assert family is None or str(family) in str(caught.value)


@pytest.mark.parametrize("kind", ["default", "linear", "llama3", "yarn", "dynamic", "longrope"])
def test_unknown_rotary_variants_are_refused_by_name(kind: str) -> None:
    check_family({"model_type": "llama", "rope_scaling": {"rope_type": kind}}, "config.json")
    check_family({"model_type": "phi3", "rope_scaling": {"type": "su"}}, "config.json")
    with pytest.raises(InputError, match="rope_type = 'su'"):
        check_family({"model_type": "llama", "rope_scaling": {"type": "su"}}, "config.json")
    with pytest.raises(InputError, match="rope_type = 'mrope'"):
        ropes = {"full_attention": {"rope_type": "mrope"}, "sliding_attention": {"rope_type": kind}}
        check_family({"model_type": "gemma3_text", "rope_parameters": ropes}, "config.json")


@pytest.mark.parametrize(("family", "method"), [("gpt_oss", "awq"), ("mixtral", "mxfp4"), ("llama", "bitsandbytes")])
def test_quantised_weights_are_refused_unless_they_are_read(family: str, method: str) -> None:
    with pytest.raises(InputError, match=f"quantization_config = '{method}'"):
        check_family({"model_type": family, "quantization_config": {"quant_method": method}}, "config.json")
    check_family({"model_type": "gpt_oss", "quantization_config": {"quant_method": "mxfp4"}}, "config.json")


def changed(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], None], **sizes: Any) -> Path:
    """A tiny checkpoint in `folder` after `change` of its tensors and its config."""
    tiny_checkpoint(folder, num_hidden_layers=2, **sizes)
    tensors, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    change(tensors, config)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def classify(tensors: dict[str, Any], config: dict[str, Any]) -> None:
    del tensors["lm_head.weight"]
    tensors["score.weight"] = torch.zeros(1, 64)


def classify_by_name(tensors: dict[str, Any], config: dict[str, Any]) -> None:
    classify(tensors, config)
    config["architectures"] = ["LlamaForSequenceClassification"]


def lose_head(tensors: dict[str, Any], config: dict[str, Any]) -> None:
    del tensors["lm_head.weight"]


def body_alone(tensors: dict[str, Any], config: dict[str, Any]) -> None:
    del tensors["lm_head.weight"]
    for name in list(tensors):
        tensors[name.removeprefix("model.")] = tensors.pop(name)
    config["architectures"] = ["LlamaModel"]


def add_bias(tensors: dict[str, Any], config: dict[str, Any]) -> None:
    tensors["model.layers.1.self_attn.q_proj.bias"] = torch.zeros(64)


def announce_bias(tensors: dict[str, Any], config: dict[str, Any]) -> None:
    config["attention_bias"] = True


def shorten(tensors: dict[str, Any], config: dict[str, Any]) -> None:
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(95, 64)


def cut_vocabulary(tensors: dict[str, Any], config: dict[str, Any]) -> None:
    tensors["model.embed_tokens.weight"] = torch.zeros(250, 64)


def to_fp8(tensors: dict[str, Any], config: dict[str, Any]) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)


def to_gptq(tensors: dict[str, Any], config: dict[str, Any]) -> None:
    del tensors["model.layers.0.mlp.up_proj.weight"]
    tensors["model.layers.0.mlp.up_proj.qweight"] = torch.zeros(8, 96, dtype=torch.int32)
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (classify, "'score.weight' is the head of a classifier"),
        (classify_by_name, "architectures = 'LlamaForSequenceClassification': expected a causal language model"),
        (lose_head, "'lm_head.weight' is missing: expected it, or tie_word_embeddings"),
        (body_alone, "without the prefix 'model.'"),
        (add_bias, "'model.layers.1.self_attn.q_proj.bias' is not part of the layer"),
        (announce_bias, "'model.layers.0.self_attn.q_proj.bias' is missing, and 7 more"),
        (shorten, "'model.layers.0.mlp.up_proj.weight' is 95 x 64: expected 96 x 64"),
        (cut_vocabulary, "'model.embed_tokens.weight' is 250 x 64: expected 256 x 64"),
        (to_fp8, "'model.layers.0.mlp.up_proj.weight' holds F8_E4M3: expected"),
        (to_gptq, "'model.layers.0.mlp.up_proj.weight' cannot be stored as gptq: its inputs are no multiple"),
    ],
)
def test_tensors_that_are_not_the_configs_are_named(tmp_path: Path, change: Any, message: str) -> None:
    folder = changed(tmp_path, change)
    with pytest.raises(InputError, match=message) as caught:
        Checkpoint(folder).check_tensors()
    assert caught.value.exit_code == 2


def test_tensors_that_do_no_harm_are_left_alone(tmp_path: Path) -> None:
    def add(tensors: dict[str, Any], config: dict[str, Any]) -> None:
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(8)
        tensors["model.layers.2.mlp.up_proj.weight"] = torch.zeros(4, 4)

    Checkpoint(changed(tmp_path / "a", add)).check_tensors()
    Checkpoint(changed(tmp_path / "b", lambda tensors, _: None, tie_word_embeddings=True)).check_tensors()


def test_a_classifier_with_tied_embeddings_is_refused(tmp_path: Path) -> None:
    def add(tensors: dict[str, Any], config: dict[str, Any]) -> None:
        tensors["score.weight"] = torch.zeros(1, 64)

    with pytest.raises(InputError, match=r"'score.weight' is the head of a classifier"):
        Checkpoint(changed(tmp_path, add, tie_word_embeddings=True)).check_tensors()


def test_an_index_that_does_not_fit_its_files(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path, num_hidden_layers=2)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    index = {"weight_map": {name: file for file, half in halves.items() for name in half}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    for file, half in halves.items():
        save_file({name: tensors[name] for name in half}, tmp_path / file)
    Checkpoint(tmp_path).check_tensors()
    save_file({name: tensors[name] for name in names[8:]}, tmp_path / "b.safetensors")
    with pytest.raises(InputError, match=rf"'{names[8]}' stands in a.safetensors and in b.safetensors"):
        Checkpoint(tmp_path).check_tensors()
    save_file({name: tensors[name] for name in names[10:]}, tmp_path / "b.safetensors")
    with pytest.raises(InputError, match=rf"b.safetensors: tensor '{names[9]}' is missing"):
        Checkpoint(tmp_path).check_tensors()


def test_a_model_that_looks_both_ways_is_refused() -> None:
    with pytest.raises(InputError, match="use_bidirectional_attention = True"):
        check_family({"model_type": "gemma3_text", "use_bidirectional_attention": True}, "config.json")
    with pytest.raises(InputError, match="is_causal = False: expected a causal language model"):
        check_family({"model_type": "qwen2", "is_causal": False}, "config.json")


def test_a_config_with_a_byte_order_mark_is_refused(tmp_path: Path) -> None:
    config = tiny_checkpoint(tmp_path, num_hidden_layers=2) / "config.json"
    config.write_bytes(b"\xef\xbb\xbf" + config.read_bytes())
    with pytest.raises(InputError, match=r"config.json: begins with a byte order mark"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("family", ["llama", "qwen2", "mixtral", "gemma", "gemma2", "smollm3"])
def test_a_config_that_does_not_mention_tied_embeddings(family: str, tmp_path: Path, monkeypatch) -> None:
    """Transformers' default of the family counts; a stored output projection wins over it."""
    monkeypatch.setattr(checkpoints, "check_family", lambda *_: None)  # also families that are only planned
    config = AutoConfig.for_model(family)
    written = config.to_dict()
    written.pop("tie_word_embeddings", None)
    (tmp_path / "config.json").write_text(json.dumps(written))
    save_file({"model.embed_tokens.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    assert Checkpoint(tmp_path).ties_embeddings == config.tie_word_embeddings
    tensors = {name: torch.zeros(2, 2) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    save_file(tensors, tmp_path / "model.safetensors")
    assert not Checkpoint(tmp_path).ties_embeddings


def test_a_config_without_a_context_has_that_of_transformers(tiny_llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    assert Checkpoint(folder).context_tokens == config.pop("max_position_embeddings") == 512
    (folder / "config.json").write_text(json.dumps(config))
    assert Checkpoint(folder).context_tokens == LlamaConfig().max_position_embeddings == 2048


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"architectures": 5}, "architectures = 5: expected a list of names"),
        ("config.json", {"architectures": "LlamaForCausalLM"}, "architectures = 'LlamaForCausalLM': expected a list"),
        ("config.json", {"rope_scaling": [1]}, r"rope_scaling = \[1\]: expected an object with rope_type"),
        ("config.json", {"rms_norm_eps": float("nan")}, "rms_norm_eps = nan: expected a finite number"),
        ("generation_config.json", {"eos_token_id": "2"}, "eos_token_id = '2': expected a token id, or a list of them"),
        ("generation_config.json", {"eos_token_id": [[2]]}, r"eos_token_id = \[\[2\]\]: expected a token id"),
        ("generation_config.json", {"eos_token_id": True}, "eos_token_id = True: expected a token id"),
        ("generation_config.json", [], "generation_config.json: expected a mapping of fields"),
    ],
)
def test_fields_of_another_type_are_named(tiny_llama: Path, tmp_path: Path, file: str, changes, message: str) -> None:
    """An end of the answer that is text would never be met: the answer would run on to its limit."""
    folder = shutil.copytree(tiny_llama, tmp_path / "copy")
    path = folder / file
    old = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**old, **changes} if isinstance(changes, dict) else changes))
    with pytest.raises(InputError, match=message):
        _ = Checkpoint(folder).eos_ids


def with_cache_scales(folder: Path, *, with_scheme: bool) -> Path:
    """A checkpoint of 8 bits that has scales for its KV cache, as compressed-tensors writes them."""
    packed, _ = low_bit_checkpoint(folder, "e4m3", num_hidden_layers=2)
    tensors, config = load_file(packed / "model.safetensors"), json.loads((packed / "config.json").read_text())
    for layer in range(2):
        tensors |= {f"model.layers.{layer}.self_attn.{part}_scale": torch.tensor([0.5]) for part in "kv"}
    save_file(tensors, packed / "model.safetensors", metadata={"format": "pt"})
    if with_scheme:
        config["quantization_config"]["kv_cache_scheme"] = {"num_bits": 8, "type": "float"}
        (packed / "config.json").write_text(json.dumps(config))
    return packed


def test_scales_of_a_cache_of_few_bits_are_left_aside_with_a_warning(tmp_path: Path, caplog) -> None:
    packed = with_cache_scales(tmp_path / "a", with_scheme=True)
    Checkpoint(packed).check_tensors()
    assert len([said for said in caplog.messages if "kv_cache_scheme asks for a KV cache of 8 bits" in said]) == 1
    caplog.clear()
    own = Checkpoint(low_bit_checkpoint(tmp_path / "b", "e4m3", num_hidden_layers=2)[0])
    layers = [each.read_layer(1, torch.float32, torch.device("cpu")) for each in (Checkpoint(packed), own)]
    assert set(layers[0]) == set(layers[1]) and not caplog.messages
    # Without a scheme nobody says what the scales are for.
    with pytest.raises(InputError, match=r"self_attn.k_scale' is not part of the layer"):
        Checkpoint(with_cache_scales(tmp_path / "c", with_scheme=False)).check_tensors()
