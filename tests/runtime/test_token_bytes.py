"""The bytes of single tokens join to the bytes of the text that `tokenizers` decodes."""

from __future__ import annotations

import pytest

pytest.importorskip("tokenizers")

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers import normalizers as norms

from helix_kit.runtime.token_bytes import TokenBytes

TEXT = "The café costs 3 € – naïve 漢字 and 🤗 emoji, twice: 🤗."


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    return tokenizer


def byte_fallback() -> Tokenizer:
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)}
    for piece in ("▁", "T", "h", "e", "a", "c", "f", "▁Th", "▁t"):
        vocabulary.setdefault(piece, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token=None, fuse_unk=True))
    tokenizer.normalizer = norms.Sequence([norms.Prepend("▁"), norms.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_bytes_join_to_the_text(make) -> None:
    tokenizer = make()
    ids = tokenizer.encode(TEXT).ids
    tokens = TokenBytes(tokenizer)
    joined = b"".join(tokens.of(token) for token in ids)
    assert joined.decode().removeprefix(" ") == tokenizer.decode(ids) == TEXT
    assert any(tokens.text(token).startswith("bytes:\\x") for token in ids)  # parts of characters


def test_words_metaspace_and_added_tokens() -> None:
    words = Tokenizer(models.WordLevel({"one": 0, "two": 1, "</s>": 2}, unk_token="one"))
    words.add_special_tokens([AddedToken("</s>", special=True)])
    tokens = TokenBytes(words)
    assert [tokens.text(token) for token in range(4)] == [" one", " two", "</s>", "token_id:3"]
    assert (tokens.of(1), tokens.of(3)) == (b" two", None)
    words.decoder = decoders.Metaspace()
    words.add_tokens(["▁three", "four"])
    assert TokenBytes(words).of(0) == b"one"
    pieces = Tokenizer(models.WordPiece({"[UNK]": 0, "play": 1, "##ing": 2}, unk_token="[UNK]"))
    pieces.decoder = decoders.WordPiece()
    assert [TokenBytes(pieces).of(token) for token in (1, 2)] == [b" play", b"ing"]
