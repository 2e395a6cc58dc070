"""Special tokens that stand in other files than tokenizer.json, against transformers' AutoTokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

pytest.importorskip("torch")

from helix_kit.errors import InputError
from helix_kit.runtime.text import TextCodec

TOKENS = ["bos", "eos", "unk", "pad", "image", "audio"]
TEMPLATE = "{{ '|'.join([" + ", ".join(f"{name}_token | string" for name in TOKENS) + "]) }}"
TEXT = "<s> hello <image> world </s> <call> <end> hello"


def added(text: str, **flags: bool) -> dict[str, Any]:
    defaults = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)
    return {"content": text, **defaults, "special": True, **flags}


CASES: dict[str, dict[str, Any]] = {
    "config": {"tokenizer_config.json": {"bos_token": "<s>", "eos_token": {"__type": "AddedToken", **added("</s>")}}},
    "map alone": {"special_tokens_map.json": {"bos_token": "<s>", "eos_token": added("</s>"), "pad_token": "<end>"}},
    "map replaces config": {
        "tokenizer_config.json": {"eos_token": "</s>", "pad_token": "<s>"},
        "special_tokens_map.json": {"eos_token": "<end>"},
    },
    "map is a copy": {
        "tokenizer_config.json": {"eos_token": "</s>", "added_tokens_decoder": {"2": added("</s>")}},
        "special_tokens_map.json": {"eos_token": "<end>", "bos_token": "<s>"},
    },
    "named extra tokens": {
        "tokenizer_config.json": {"audio_token": "<call>", "extra_special_tokens": {"image_token": "<image>"}}
    },
    "a list of extra tokens": {"tokenizer_config.json": {"extra_special_tokens": ["<image>", "<end>"]}},
    "additional tokens": {"tokenizer_config.json": {"additional_special_tokens": ["<image>", "<end>"]}},
    "added tokens of the config": {
        "tokenizer_config.json": {
            "eos_token": "<end>",
            "added_tokens_decoder": {"9": added("<end>"), "8": added("<call>", special=False)},
        }
    },
    "added_tokens.json": {
        "tokenizer_config.json": {"eos_token": "<end>"},
        "added_tokens.json": {"<end>": 9, "<call>": 8},
    },
}


@pytest.mark.parametrize("case", CASES)
def test_names_ids_and_text_are_those_of_transformers(tmp_path: Path, case: str) -> None:
    from transformers import AutoTokenizer

    vocabulary = {text: i for i, text in enumerate(["<unk>", "<s>", "</s>", "hello", "world", "<", "end", ">"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    tokenizer.add_special_tokens(["<unk>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    files = {"tokenizer_config.json": {}, **CASES[case]}
    files["tokenizer_config.json"] |= {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE}
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    codec, expected = TextCodec(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    messages = [{"role": "user", "content": "hello"}]
    assert codec.render_chat(messages) == expected.apply_chat_template(messages, tokenize=False)
    ids = codec.encode(TEXT)
    assert ids == expected(TEXT)["input_ids"]
    assert codec.decode(ids) == expected.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {"content": "<a>"}}}, "added_tokens_decoder.x"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"7": {"text": "<a>"}}}, "added_tokens_decoder.7"),
        ("added_tokens.json", {"<a>": "7", "<b>": 8}, "<a> = '7': expected a token id"),
    ],
)
def test_tokens_without_id_or_text_are_named(tmp_path: Path, file: str, content: dict, message: str) -> None:
    Tokenizer(models.WordLevel({"hello": 0, "<unk>": 1}, "<unk>")).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        TextCodec(tmp_path).encode("hello")


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    (tmp_path / "special_tokens_map.json").write_text("[]")
    with pytest.raises(InputError, match=r"special_tokens_map.json.*expected a mapping"):
        TextCodec(tmp_path).render_chat([{"role": "user", "content": "hello"}])
