"""The special tokens that a Hugging Face folder names, beside those that tokenizer.json itself lists.

They stand in several files, because each version of transformers wrote others: tokenizer_config.json,
special_tokens_map.json and added_tokens.json. The rules for which of them counts are those of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_kit import _files
from helix_kit.errors import InputError

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def read_mapping(path: Path) -> dict[str, Any]:
    """The JSON mapping in `path`; an empty one where there is no such file."""
    if not path.is_file():
        return {}
    found = _files.read_json(path)
    if not isinstance(found, dict):
        raise InputError("expected a mapping of fields", where=path)
    return found


def merged_settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json with what special_tokens_map.json adds and replaces.

    As in transformers, special_tokens_map.json counts only where tokenizer_config.json has no ``added_tokens_decoder``:
    folders that have one were written by versions for which the map is a copy.
    """
    settings = read_mapping(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in settings:
        settings = {**settings, **read_mapping(folder / "special_tokens_map.json")}
    return settings


def named_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """Text of each named special token, such as ``bos_token`` or the ``image_token`` of a multimodal model.

    >>> named_tokens({"eos_token": {"content": "</s>"}, "extra_special_tokens": {"image_token": "<image>"}})
    {'eos_token': '</s>', 'image_token': '<image>'}
    """
    found = {name: value for name, value in settings.items() if name.endswith("_token")}
    extra = settings.get("extra_special_tokens")
    if isinstance(extra, dict):
        found.update(extra)
    return {name: text for name, value in found.items() if (text := _text_of(value)) is not None}


def add_missing_tokens(tokenizer: Tokenizer, folder: Path, settings: Mapping[str, Any]) -> None:
    """Add to `tokenizer` the special tokens that only the other files list, in the order of their ids."""
    from tokenizers import AddedToken

    known = {token.content: token for token in tokenizer.get_added_tokens_decoder().values()}
    named = named_tokens(settings)
    special = set(named.values())
    wanted: list[AddedToken] = []
    listed = settings.get("added_tokens_decoder")
    if isinstance(listed, dict):
        for token, fields in listed.items():
            if not (token.isdecimal() and isinstance(fields, dict) and isinstance(fields.get("content"), str)):
                expected = "expected token ids with an object that has the token's text as content"
                where = folder / "tokenizer_config.json"
                raise InputError(expected, where=where, field=f"added_tokens_decoder.{token}", value=fields)
        for _, fields in sorted(listed.items(), key=lambda item: int(item[0])):
            flags = {flag: bool(fields.get(flag)) for flag in _FLAGS}
            flags["special"] |= fields["content"] in special
            wanted.append(AddedToken(fields["content"], **flags))
    else:
        by_text = read_mapping(folder / "added_tokens.json")
        for text, token in by_text.items():
            if isinstance(token, bool) or not isinstance(token, int):
                where = folder / "added_tokens.json"
                raise InputError("expected a token id for each text", where=where, field=text, value=token)
        for text, _ in sorted(by_text.items(), key=lambda item: item[1]):
            # tokenizer.json knows the flags of a token that it lists; added_tokens.json has none.
            if text not in known:
                wanted.append(AddedToken(text, normalized=text not in special, special=text in special))
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens")
    listed_texts = [_text_of(value) for value in extra] if isinstance(extra, list) else []
    texts = [*named.values(), *(text for text in listed_texts if text is not None)]
    have = known.keys() | {token.content for token in wanted}
    wanted += [AddedToken(text, special=True, normalized=False) for text in dict.fromkeys(texts) if text not in have]
    missing = [token for token in wanted if repr(known.get(token.content)) != repr(token)]
    if missing:
        tokenizer.add_tokens(missing)


def _text_of(value: Any) -> str | None:
    """A token is written as its text, or as a mapping with its text and flags."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None
