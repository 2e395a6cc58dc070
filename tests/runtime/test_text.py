"""Text from tokens, one token at a time, against decoding all tokens at once with the `tokenizers` library."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from helix_kit.errors import InputError
from helix_kit.runtime.text import MAX_HELD_BYTES, TextCodec, TextStream

SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
WORDS = ["▁hello", "▁world", "▁is", "▁", "a", "b", "you", "\ufffd", "你"]
SENTENCES = ["hello world the cat 你好 世界 😀👍🏽 naïve café é\n\n"] * 3


def bpe_with_bytes() -> Tokenizer:
    """The kind of Llama-2 and Mistral: one space is added before the text, and one is dropped when it is decoded."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *BYTES, *WORDS])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def unigram_with_bytes() -> Tokenizer:
    vocabulary = [(token, -1.0 - i / 100) for i, token in enumerate([*SPECIAL, *BYTES, *WORDS])]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return tokenizer


def byte_level() -> Tokenizer:
    """The kind of Qwen and Llama-3."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, special_tokens=SPECIAL)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def metaspace() -> Tokenizer:
    vocabulary = [(token, -1.0 - i / 100) for i, token in enumerate([*SPECIAL, *WORDS, *"helowrdist"])]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return tokenizer


def word_piece() -> Tokenizer:
    vocabulary = {t: i for i, t in enumerate([*SPECIAL, "hello", "##s", "##ing", ".", ",", "do", "n't", "你", "a"])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    return tokenizer


def word_ends() -> Tokenizer:
    """BPE whose tokens mark the ends of words."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *"abc", "a</w>", "b</w>", "ab</w>"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Whitespace(), decoders.BPEDecoder()
    return tokenizer


KINDS = [bpe_with_bytes, unigram_with_bytes, byte_level, metaspace, word_piece, word_ends]


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TextCodec]:
    """A codec for each kind of tokenizer, by the kind's name."""
    found = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind.__name__)
        tokenizer = kind()
        tokenizer.add_special_tokens(SPECIAL)
        tokenizer.add_tokens(["<tool>"])
        tokenizer.save(str(folder / "tokenizer.json"))
        found[kind.__name__] = TextCodec(folder)
    return found


def stream(codec: TextCodec, ids: Sequence[int], stop: Sequence[str] = (), prompt: Sequence[int] = ()):
    """The pieces of the text, and after how many tokens a stop string ended it (None: it did not)."""
    text, pieces, stopped = TextStream(codec, stop, prompt), [], False
    for token_id in ids:
        piece, stopped = text.feed(token_id)
        pieces.append(piece)
        if stopped:
            break
    count = len(pieces) if stopped else None
    pieces.append(text.flush())
    assert "".join(pieces) == text.text
    return pieces, count


def byte_ids(codec: TextCodec, text: str) -> list[int]:
    return [codec.tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in text.encode()]


def ids_of(codec: TextCodec, data: st.DataObject, label: str) -> list[int]:
    """Tokens of some text, with any tokens between them: special ones, half characters, ids without a token."""
    size = codec.tokenizer.get_vocab_size()
    anything = st.lists(st.integers(0, size + 2), max_size=6)
    text = st.text(st.sampled_from("hello world😀👍🏽你世界éñ\n\ufffd.,"), max_size=8).map(
        lambda text: codec.encode(text, special=False)
    )
    chunks = data.draw(st.lists(anything | text | st.just([1, 2]), max_size=5), label=label)
    return [token_id for chunk in chunks for token_id in chunk]


@pytest.mark.parametrize("kind", [kind.__name__ for kind in KINDS])
@given(data=st.data())
@settings(deadline=None, max_examples=80)
def test_streamed_text_is_the_whole_text(codecs: dict[str, TextCodec], kind: str, data: st.DataObject) -> None:
    codec = codecs[kind]
    ids = ids_of(codec, data, "answer")
    pieces, _ = stream(codec, ids)
    assert "".join(pieces) == codec.tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("kind", [kind.__name__ for kind in KINDS])
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_prompt_and_text_are_the_text_of_both(codecs: dict[str, TextCodec], kind: str, data: st.DataObject) -> None:
    codec = codecs[kind]
    # The prompt ends with a word: a prompt that ends with bytes may get another text from the bytes that follow.
    last = next(i for i in (codec.tokenizer.token_to_id(t) for t in ("▁is", "hello", "a</w>", "he")) if i is not None)
    prompt = [1, *ids_of(codec, data, "prompt"), last]
    ids = ids_of(codec, data, "answer")
    pieces, _ = stream(codec, ids, prompt=prompt)
    whole = codec.tokenizer.decode([*prompt, *ids], skip_special_tokens=True)
    assert codec.decode(prompt) + "".join(pieces) == whole


@pytest.mark.parametrize("kind", [kind.__name__ for kind in KINDS])
@given(data=st.data(), stops=st.lists(st.text("helo ws\n😀你.", min_size=1, max_size=4), min_size=1, max_size=3))
@settings(deadline=None, max_examples=60)
def test_a_stop_string_ends_the_text_where_it_first_stands(
    codecs: dict[str, TextCodec], kind: str, data: st.DataObject, stops: list[str]
) -> None:
    codec = codecs[kind]
    ids = ids_of(codec, data, "answer")
    pieces, count = stream(codec, ids, stops)
    texts = [codec.tokenizer.decode(ids[:n], skip_special_tokens=True) for n in range(len(ids) + 1)]
    first = next((n for n, text in enumerate(texts) if any(stop in text for stop in stops)), None)
    assert count == first
    text = texts[-1] if first is None else texts[first]
    ends = [text.index(stop) for stop in stops if stop in text]
    assert "".join(pieces) == (text[: min(ends)] if ends else text)


def test_two_characters_of_byte_tokens_stand_one_after_the_other(codecs: dict[str, TextCodec]) -> None:
    codec = codecs["bpe_with_bytes"]
    hello, world = (codec.tokenizer.token_to_id(word) for word in ("▁hello", "▁world"))
    pieces, _ = stream(codec, [hello, *byte_ids(codec, "😀👍"), world])
    assert "".join(pieces) == "hello😀👍 world"


def test_words_on_both_sides_of_a_special_token_keep_their_space(codecs: dict[str, TextCodec]) -> None:
    codec = codecs["bpe_with_bytes"]
    hello, world = (codec.tokenizer.token_to_id(word) for word in ("▁hello", "▁world"))
    assert stream(codec, [hello, 2, world])[0] == ["hello", "", " world", ""]
    assert stream(codec, [1, hello, world])[0] == ["", "hello", " world", ""]


def test_the_first_word_after_a_prompt_keeps_its_space(codecs: dict[str, TextCodec]) -> None:
    codec = codecs["bpe_with_bytes"]
    hello, world = (codec.tokenizer.token_to_id(word) for word in ("▁hello", "▁world"))
    assert stream(codec, [world], prompt=[1, hello])[0] == [" world", ""]
    assert stream(codec, [world], prompt=[1, hello, 2])[0] == [" world", ""]
    assert stream(codec, [world], prompt=[1])[0] == ["world", ""]
    emoji = byte_ids(codec, "😀")
    assert "".join(stream(codec, [*emoji, world], prompt=[1, hello, *emoji])[0]) == "😀 world"
    assert "".join(stream(codec, [*emoji[:2], world], prompt=[1, hello, *emoji])[0]) == "\ufffd\ufffd world"
    assert "".join(stream(codec, [*emoji, world], prompt=emoji)[0]) == "😀 world"


def test_a_stop_of_byte_tokens_ends_the_text_at_its_last_byte(codecs: dict[str, TextCodec]) -> None:
    codec = codecs["bpe_with_bytes"]
    hello, world = (codec.tokenizer.token_to_id(word) for word in ("▁hello", "▁world"))
    pieces, count = stream(codec, [hello, *byte_ids(codec, "\n\n"), world], ["\n\n"])
    assert ("".join(pieces), count) == ("hello", 3)
    pieces, count = stream(codec, [hello, world], ["lo wor"])
    assert (pieces, count) == (["hel", "", ""], 2)


def test_a_text_of_bytes_alone_is_not_held_back_to_its_end(codecs: dict[str, TextCodec]) -> None:
    codec = codecs["unigram_with_bytes"]
    text = "ภาษาไทย" * 20
    ids = byte_ids(codec, text)
    pieces, _ = stream(codec, ids, prompt=codec.encode("hello is"))
    assert "".join(pieces) == text
    sent = [n for n, piece in enumerate(pieces) if piece]
    assert max(b - a for a, b in zip([0, *sent], sent)) <= MAX_HELD_BYTES + 4


def test_truncation_and_padding_of_the_file_are_switched_off(tmp_path: Path) -> None:
    tokenizer = bpe_with_bytes()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=64)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ids = TextCodec(tmp_path).encode("hello world " * 20)
    assert len(ids) > 64
    assert TextCodec(tmp_path).decode(ids) == "hello world " * 20
    assert len(TextCodec(tmp_path).encode("a")) < 8


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        TextCodec(tmp_path).encode("a")
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0"}))
    with pytest.raises(InputError, match="not a tokenizer"):
        TextCodec(tmp_path).encode("a")
