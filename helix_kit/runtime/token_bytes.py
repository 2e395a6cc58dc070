"""The bytes that one token adds to a text: what log-probabilities are shown with.

A token need not be whole characters, and its text alone need not be what it adds: many tokenizers drop the space of a
text's first word.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_CONTEXT = "a"
"""A token before the one that is decoded, so that this one is not the first of a text."""


def _byte_of_character() -> dict[str, int]:
    """Byte-level tokenizers spell each byte as one printable character: itself, or the next free one from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


class TokenBytes:
    """The bytes of each token of one tokenizer.

    Parameters
    ----------
    tokenizer
        Of the `tokenizers` library.

    Examples
    --------
    >>> from tokenizers import Tokenizer, decoders, models
    >>> tokenizer = Tokenizer(models.BPE({"Ġcaf": 0, "Ã": 1, "©": 2}, []))
    >>> tokenizer.decoder = decoders.ByteLevel()
    >>> tokens = TokenBytes(tokenizer)
    >>> tokens.of(0), tokens.of(1), tokens.text(0), tokens.text(1)
    (b' caf', b'\\xc3', ' caf', 'bytes:\\\\xc3')
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, bytes | None] = {}

    def of(self, token_id: int) -> bytes | None:
        """Bytes of the token in the middle of a text; None for an id that the tokenizer does not know."""
        if token_id not in self._known:
            self._known[token_id] = self._find(token_id)
        return self._known[token_id]

    def text(self, token_id: int) -> str:
        """The token as OpenAI's API shows it: its text, or its bytes where they are no whole characters."""
        data = self.of(token_id)
        if data is None:
            return f"token_id:{token_id}"
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    def _find(self, token_id: int) -> bytes | None:
        piece = self._tokenizer.id_to_token(token_id)
        if piece is None:
            return None
        if token_id in self._added:
            return piece.encode()
        decoder = self._tokenizer.decoder
        if decoder is None:
            return f" {piece}".encode()  # without a decoder, tokens are joined with spaces
        if self._is_byte_level:
            return b"".join(
                bytes([self._bytes[character]]) if character in self._bytes else character.encode()
                for character in piece
            )
        if self._joins_bytes and (byte := _BYTE_TOKEN.fullmatch(piece)):
            return bytes.fromhex(byte[1])
        both, before = decoder.decode([_CONTEXT, piece]), decoder.decode([_CONTEXT])
        return (both.removeprefix(before) if both.startswith(before) else decoder.decode([piece])).encode()

    @cached_property
    def _added(self) -> frozenset[int]:
        return frozenset(self._tokenizer.get_added_tokens_decoder())

    @cached_property
    def _bytes(self) -> dict[str, int]:
        return _byte_of_character()

    @cached_property
    def _is_byte_level(self) -> bool:
        return self._tokenizer.decoder.decode(["aĠb"]) == "a b"

    @cached_property
    def _joins_bytes(self) -> bool:
        return self._tokenizer.decoder.decode(["<0x41>"]).strip() == "A"
