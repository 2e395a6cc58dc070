"""Text to tokens and back, with the `tokenizers` library alone: the user's process needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_kit import _files
from helix_kit.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_REPLACEMENT = "\ufffd"


class TextCodec:
    """The tokenizer and the chat template of the checkpoint in `folder`."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; raises InputError when the folder has no tokenizer.json."""
        from tokenizers import Tokenizer

        path = self.folder / "tokenizer.json"
        if not path.is_file():
            expected = "no such file: text needs a tokenizer (prompts may also be lists of token ids)"
            raise InputError(expected, where=path)
        return Tokenizer.from_file(str(path))

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of `text`; `special` adds the tokens that the tokenizer puts around a prompt, such as BOS."""
        return self.tokenizer.encode(text, add_special_tokens=special).ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of `token_ids`, without special tokens."""
        return self.tokenizer.decode(list(token_ids), skip_special_tokens=True)

    @cached_property
    def _settings(self) -> dict[str, Any]:
        path = self.folder / "tokenizer_config.json"
        return _files.read_json(path) if path.is_file() else {}

    @cached_property
    def chat_template(self) -> str | None:
        """The Jinja source of the model's chat template; None when it has none."""
        path = self.folder / "chat_template.jinja"
        if path.is_file():
            return _files.read_text(path)
        template = self._settings.get("chat_template")
        if isinstance(template, list):
            template = next((t["template"] for t in template if t.get("name") == "default"), None)
        return template

    def render_chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt that asks for the assistant's next message.

        Raises InputError when the model has no template, or the template refuses the messages.
        """
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        if self.chat_template is None:
            raise InputError("has no chat template: use plain prompts", where=self.folder)

        def refuse(message: str) -> None:
            raise TemplateError(message)

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = refuse
        environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
        names = {
            f"{kind}_token": token.get("content") if isinstance(token, dict) else token
            for kind in ("bos", "eos", "unk", "pad")
            if (token := self._settings.get(f"{kind}_token")) is not None
        }
        try:
            template = environment.from_string(self.chat_template)
            return template.render(messages=[dict(m) for m in messages], add_generation_prompt=True, **names)
        except TemplateError as error:
            raise InputError(f"the chat template refuses these messages: {error}", field="messages") from None


class TextStream:
    """Turns tokens into text one by one; text is returned as soon as it can no longer change.

    Held back are the bytes of an unfinished character, and text that may be the beginning of a stop string.

    Parameters
    ----------
    codec
        Decodes tokens.
    stop
        Strings that end the text; they are not part of it.
    """

    def __init__(self, codec: TextCodec, stop: Sequence[str] = ()) -> None:
        self._codec, self._stop = codec, tuple(stop)
        self._window: list[int] = []
        """Tokens whose text may still change, preceded by one token whose text may not, as their context."""
        self._settled = 0
        """How many tokens of the window precede them: 0 or 1."""
        self._held = ""
        self.text = ""
        """All text returned so far."""

    @property
    def has_stops(self) -> bool:
        """Whether there are stop strings, so that the text can end the request."""
        return bool(self._stop)

    def feed(self, token_id: int) -> tuple[str, bool]:
        """Add a token: returns the text that can no longer change, and whether a stop string was found."""
        self._window.append(token_id)
        before = self._codec.decode(self._window[: self._settled])
        whole = self._codec.decode(self._window)
        if whole.endswith(_REPLACEMENT):
            return "", False
        fresh = whole[len(before) :]
        # One earlier token is kept as context: some tokenizers drop the space before the first word of a text.
        self._window, self._settled = self._window[-1:], 1
        return self._release(self._held + fresh)

    def flush(self) -> str:
        """The text that was held back; called when no more tokens come."""
        before = self._codec.decode(self._window[: self._settled])
        rest = self._held + self._codec.decode(self._window)[len(before) :]
        self._window, self._settled, self._held = [], 0, ""
        self.text += rest
        return rest

    def _release(self, text: str) -> tuple[str, bool]:
        """Return `text` up to the first stop string, or without an end that may be the beginning of one."""
        positions = [at for s in self._stop if (at := text.find(s)) >= 0]
        if positions:
            self._held, self._window, self._settled = "", [], 0
            released = text[: min(positions)]
            self.text += released
            return released, True
        keep = max((_overlap(text, s) for s in self._stop), default=0)
        released, self._held = text[: len(text) - keep], text[len(text) - keep :]
        self.text += released
        return released, False


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
