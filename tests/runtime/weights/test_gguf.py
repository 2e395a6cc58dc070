"""A GGUF file becomes a folder in which transformers finds the same model and the same tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("gguf")

import gguf
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from helix_kit.errors import InputError
from helix_kit.runtime.weights.gguf import convert
from helix_kit.runtime.weights.tiny import tiny_checkpoint

LAYERS, HEADS, KV_HEADS = 2, 4, 2
SPECIAL = ["<|none|>", "<|start|>", "<|end|>"]
BYTES = [chr(code) for code in range(33, 127)] + ["Ġ"]  # printable ASCII, and the byte-level form of a space
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w"]
TOKENS = [*SPECIAL, *BYTES, *(merge.replace(" ", "") for merge in MERGES)]
NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a rotary projection as llama.cpp stores them: value i of the second half follows that of the first."""
    rows = weight.shape[0] // heads
    order = [head * rows + half * rows // 2 + i for head in range(heads) for i in range(rows // 2) for half in range(2)]
    return weight[order]


def write_gguf(path: Path, weights: dict[str, np.ndarray], *, architecture: str = "llama", quantised: bool) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(512)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_merges(MERGES)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)))
    for name, number in (("bos", 1), ("eos", 2), ("unk", 0), ("pad", 2)):
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, values in weights.items():
        weight = values
        if name == "model.embed_tokens.weight":
            stored = "token_embd.weight"
        elif name == "model.norm.weight":
            stored = "output_norm.weight"
        else:
            _, _, layer, part = name.removesuffix(".weight").split(".", 3)
            stored = f"blk.{layer}.{NAMES[part]}.weight"
            if part.endswith(("q_proj", "k_proj")):
                weight = interleaved(weight, HEADS if part.endswith("q_proj") else KV_HEADS)
        if quantised and weight.ndim == 2:
            writer.add_tensor(stored, gguf.quantize(weight, kind), raw_dtype=kind)
        else:
            writer.add_tensor(stored, np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of transformers with tied embeddings, the sizes of `write_gguf` and one row for each token."""
    folder = tmp_path_factory.mktemp("original") / "llama"
    return tiny_checkpoint(
        folder, num_hidden_layers=LAYERS, vocab_size=len(TOKENS), tie_word_embeddings=True, rms_norm_eps=1e-5
    )


@pytest.mark.parametrize(("quantised", "tolerance"), [(False, 1e-5), (True, 0.3)])
def test_the_folder_holds_the_same_model(original: Path, tmp_path: Path, quantised: bool, tolerance: float) -> None:
    weights = load_file(original / "model.safetensors")
    convert(write_gguf(tmp_path / "m.gguf", weights, quantised=quantised), tmp_path / "converted")
    tokens = torch.tensor([[5, 9, 40, 7, 88, 12]])
    with torch.no_grad():
        logits = [AutoModelForCausalLM.from_pretrained(f)(tokens).logits for f in (original, tmp_path / "converted")]
    assert float(logits[0].std()) > 1
    assert float((logits[0] - logits[1]).abs().max()) < tolerance
    if not quantised:
        again = load_file(tmp_path / "converted" / "model.safetensors")
        assert again.keys() == weights.keys()
        assert all(np.array_equal(again[name], weights[name]) for name in weights)


def test_the_folder_holds_the_same_tokens(original: Path, tmp_path: Path) -> None:
    weights = load_file(original / "model.safetensors")
    convert(write_gguf(tmp_path / "m.gguf", weights, quantised=False), tmp_path / "converted")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "converted")

    def split(text: str) -> list[str]:
        return tokenizer.convert_ids_to_tokens(tokenizer.encode(text))

    assert split("hello world") == ["hello", "Ġw", "o", "r", "l", "d"]
    assert split("<|start|>he 42<|end|>") == ["<|start|>", "he", "Ġ", "4", "2", "<|end|>"]
    assert tokenizer.decode(tokenizer.encode("hello, world 42!")) == "hello, world 42!"
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<|start|>", "<|end|>", "<|end|>")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False) == "hello"
    ends = json.loads((tmp_path / "converted" / "generation_config.json").read_text())
    assert ends == {"bos_token_id": 1, "eos_token_id": 2}


def test_another_architecture_is_refused_and_leaves_no_folder(original: Path, tmp_path: Path) -> None:
    weights = load_file(original / "model.safetensors")
    path = write_gguf(tmp_path / "m.gguf", weights, architecture="qwen2", quantised=False)
    with pytest.raises(InputError, match=r"m\.gguf.*expected a llama model"):
        convert(path, tmp_path / "converted")
    assert not (tmp_path / "converted").exists()
