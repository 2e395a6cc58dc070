"""Text to tokens and back, with the `tokenizers` library alone: the user's process needs no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_kit.errors import InputError
from helix_kit.runtime import chat_template
from helix_kit.runtime.special_tokens import add_missing_tokens, merged_settings, named_tokens
from helix_kit.runtime.token_bytes import TokenBytes

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_REPLACEMENT = "\ufffd"
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
MAX_HELD_BYTES = 64
"""A run of byte tokens is given out at the latest after this many, once its last character is complete."""


class TextCodec:
    """The tokenizer and the chat template of the checkpoint in `folder`."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, with every special token that the folder's files list, and without truncation or padding.

        Raises InputError when the folder has no tokenizer.json, or the file is not one.
        """
        from tokenizers import Tokenizer

        path = self.folder / "tokenizer.json"
        if not path.is_file():
            expected = "no such file: text needs a tokenizer (prompts may also be lists of token ids)"
            raise InputError(expected, where=path)
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises Exception itself
            raise InputError(f"not a tokenizer: {error}", where=path) from None
        # tokenizer.json keeps the settings of the last training run. They would cut or pad prompts silently.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        add_missing_tokens(tokenizer, self.folder, self._settings)
        return tokenizer

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of `text`; `special` adds the tokens that the tokenizer puts around a prompt, such as BOS."""
        return self.tokenizer.encode(text, add_special_tokens=special).ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of `token_ids`, without special tokens."""
        return self.tokenizer.decode(list(token_ids), skip_special_tokens=True)

    def has_text(self, token_id: int) -> bool:
        """Whether `decode` reads the token: it is not special, and the tokenizer knows it."""
        return token_id not in self._special_ids and self.tokenizer.id_to_token(token_id) is not None

    def is_byte(self, token_id: int) -> bool:
        """Whether the token is one byte (``<0xF0>``) of a run of bytes, which the tokenizer decodes as a whole."""
        return self._joins_bytes and _BYTE_TOKEN.fullmatch(self.tokenizer.id_to_token(token_id) or "") is not None

    @cached_property
    def token_bytes(self) -> TokenBytes:
        """The bytes that each token adds to a text."""
        return TokenBytes(self.tokenizer)

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        added = self.tokenizer.get_added_tokens_decoder()
        return frozenset(token_id for token_id, token in added.items() if token.special)

    @cached_property
    def _joins_bytes(self) -> bool:
        decoder = self.tokenizer.decoder
        return decoder is not None and decoder.decode(["<0x41>"]).strip() == "A"

    @cached_property
    def _settings(self) -> dict[str, Any]:
        return merged_settings(self.folder)

    @cached_property
    def _templates(self) -> dict[str, str]:
        return chat_template.read_templates(self.folder, self._settings)

    @property
    def chat_template(self) -> str | None:
        """The Jinja source of the model's usual chat template; None when it has none."""
        return chat_template.choose_template(self._templates, with_tools=False)

    def chat_variables(self, *, with_tools: bool = False) -> frozenset[str]:
        """Names that the chat template reads from outside; none where there is no template."""
        template = chat_template.choose_template(self._templates, with_tools=with_tools)
        return frozenset() if template is None else chat_template.variables_of(template)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt that asks for the assistant's next message.

        Parameters
        ----------
        messages
            The conversation so far.
        tools
            Functions that the model may call, as JSON schemas. A template that does not read them ignores them.
        documents
            Texts to answer from, for templates that read them: mappings with ``title`` and ``text``.
        variables
            Further names that the template may read, such as ``enable_thinking``.

        Returns
        -------
        str
            Text that already has the model's special tokens: encode it with ``special=False``.

        Raises
        ------
        InputError
            When the model has no template, or the template refuses the messages.
        """
        template = chat_template.choose_template(self._templates, with_tools=tools is not None)
        if template is None:
            raise InputError("has no chat template: use plain prompts", where=self.folder)
        names = {**named_tokens(self._settings), **(variables or {})}
        return chat_template.render(template, messages, tools=tools, documents=documents, variables=names)


class TextStream:
    """Turns tokens into text one by one; text is returned as soon as it can no longer change.

    The pieces together are what decoding prompt and answer at once gives, without the prompt's text. Held back are the
    bytes of an unfinished character, a run of byte tokens until a token of another kind ends it (one invalid byte
    changes the text of the whole run), and text that may be the beginning of a stop string.

    Parameters
    ----------
    codec
        Decodes tokens.
    stop
        Strings that end the text; they are not part of it.
    prompt_ids
        The prompt, as the context of the first tokens: after a prompt, many tokenizers begin a word with a space that
        they drop at the beginning of a text.
    min_tokens
        Stop strings are looked for in the text of the tokens after this many.
    """

    def __init__(
        self, codec: TextCodec, stop: Sequence[str] = (), prompt_ids: Sequence[int] = (), *, min_tokens: int = 0
    ) -> None:
        self._codec = codec
        self._all_stops, self._stop = tuple(stop), tuple(stop) if min_tokens == 0 else ()
        self._tokens_without_stop = min_tokens
        self._prompt_ids: Sequence[int] | None = prompt_ids
        """None once the context has been taken from it: a request without text needs no tokenizer."""
        self._window: list[int] = []
        """Tokens whose text may still change, after one token or a few whose text may not, as their context. Tokens
        without text are left out: as the only context they would look like the beginning of a text."""
        self._given = 0
        """How many characters of the window's text have been given out."""
        self._held = ""
        self.text = ""
        """All text returned so far."""

    @property
    def has_stops(self) -> bool:
        """Whether there are stop strings, so that the text can end the request."""
        return bool(self._all_stops)

    def feed(self, token_id: int) -> tuple[str, bool]:
        """Add a token: returns the text that can no longer change, and whether a stop string was found."""
        if self._prompt_ids is not None:
            self._set_context(self._prompt_ids)
        if self._tokens_without_stop:
            self._tokens_without_stop -= 1
        else:
            self._stop = self._all_stops
        if not self._codec.has_text(token_id):
            return "", False
        self._window.append(token_id)
        whole = self._codec.decode(self._window)
        complete = whole.removesuffix(_REPLACEMENT)
        if self._stop and (at := self._first_stop(self._held + complete[self._given :])) is not None:
            return self._release(at), True
        if self._codec.is_byte(token_id):
            if len(self._window) <= MAX_HELD_BYTES or len(complete) < len(whole):
                return "", False
            context = self._last_character()
        else:
            context = 1
        fresh = complete[self._given :]
        self._given = max(self._given, len(complete))
        if len(complete) == len(whole):
            self._window = self._window[-context:]
            self._given = len(self._codec.decode(self._window))
        return self._without_beginning_of_stop(fresh), False

    def flush(self) -> str:
        """The text that was held back; called when no more tokens come."""
        rest = self._held + self._codec.decode(self._window)[self._given :] if self._window else self._held
        at = self._first_stop(rest)
        return self._release(rest if at is None else at)

    def _set_context(self, prompt_ids: Sequence[int]) -> None:
        """Begin the window with the last token of the prompt that is no byte, and the bytes of a character after it."""
        self._prompt_ids = None
        run: list[int] = []
        for token_id in reversed(prompt_ids):
            if not self._codec.has_text(token_id):
                continue
            run.insert(0, token_id)
            if not self._codec.is_byte(token_id):
                break
        # Complete characters of a run are no part of the answer's first run: an invalid byte there changes only itself.
        if len(run) > 1 and not self._codec.is_byte(run[0]) and _REPLACEMENT not in self._codec.decode(run):
            run = run[:1]
        self._window = run
        self._given = len(self._codec.decode(run)) if run else 0

    def _last_character(self) -> int:
        """How many tokens at the window's end are its last character, given that its bytes are complete."""
        return next(n for n in range(1, 5) if _REPLACEMENT not in self._codec.decode(self._window[-n:]) or n == 4)

    def _first_stop(self, text: str) -> str | None:
        """`text` up to its first stop string; None when it has none."""
        positions = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        return text[: min(positions)] if positions else None

    def _release(self, text: str) -> str:
        """Give out `text` as the last piece."""
        self._window, self._given, self._held = [], 0, ""
        self.text += text
        return text

    def _without_beginning_of_stop(self, fresh: str) -> str:
        """Give out the held text and `fresh`, except for an end that may be the beginning of a stop string."""
        text = self._held + fresh
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        released, self._held = text[: len(text) - keep], text[len(text) - keep :]
        self.text += released
        return released


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
