"""Answers in the forms of OpenAI's API: whole, and as the pieces of a stream."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from helix_kit.runtime.api.logprob_forms import CompletionLogprobs, Scored, chat_form, prompt_form
from helix_kit.runtime.handle import Completion, Handle
from helix_kit.runtime.logprobs import TokenLogprobs
from helix_kit.runtime.text import TextCodec


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """The form of the answers to one request."""

    is_chat: bool
    model: str
    codec: TextCodec
    logprobs: int | None
    """How many alternatives each token of the answer is shown with; None: no log-probabilities."""
    prompt_logprobs: int | None
    """The same for the field ``prompt_logprobs``."""

    def head(self, *, chunk: bool) -> dict[str, Any]:
        """What answers begin with."""
        kind = "chat.completion" if self.is_chat else "text_completion"
        if chunk and self.is_chat:
            kind += ".chunk"
        prefix = "chatcmpl" if self.is_chat else "cmpl"
        return {"id": f"{prefix}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": self.model}

    def whole(
        self, choices: Sequence[Choice], answers: Sequence[Completion], choices_per_prompt: int
    ) -> dict[str, Any]:
        """The answer to a request that is no stream."""
        body = self.head(chunk=False)
        body["choices"] = [choice.whole(answer) for choice, answer in zip(choices, answers, strict=True)]
        if self.is_chat and self.prompt_logprobs is not None:
            body["prompt_logprobs"] = choices[0].prompt_form(answers[0])
        return {**body, "usage": usage(answers, choices_per_prompt)}


class Choice:
    """One of the answers to a request, and how its next piece is written.

    Parameters
    ----------
    form
        That of the request.
    index
        Its number among the request's answers.
    handle
        The engine's request.
    prompt_ids
        Tokens of the prompt.
    echo
        The prompt's text, if it is part of the answer.
    """

    def __init__(
        self, form: AnswerForm, index: int, handle: Handle, prompt_ids: Sequence[int], echo: str | None
    ) -> None:
        self.form, self.index, self.handle = form, index, handle
        self._prompt_ids, self.echo = prompt_ids, echo
        self._logprobs = CompletionLogprobs(form.codec, echo or "")
        self._is_open = False

    @property
    def prompt_tokens(self) -> int:
        """How many tokens the prompt has."""
        return len(self._prompt_ids)

    def whole(self, answer: Completion) -> dict[str, Any]:
        """The choice in an answer that is no stream."""
        body: dict[str, Any] = {"index": self.index, "finish_reason": answer.finish_reason}
        body["logprobs"] = self._form_of([*self._prompt_tokens(), *scored(answer.logprobs or ())])
        if self.form.is_chat:
            return {**body, "message": {"role": "assistant", "content": answer.text, "refusal": None}}
        if self.form.prompt_logprobs is not None:
            body["prompt_logprobs"] = self.prompt_form(answer)
        return {**body, "text": (self.echo or "") + answer.text}

    def chunk(self, text: str, tokens: Sequence[TokenLogprobs], reason: str | None) -> dict[str, Any]:
        """The choice's next piece in a stream. The first one has the prompt, where it is part of the answer."""
        first, self._is_open = not self._is_open, True
        known = [*(self._prompt_tokens() if first else ()), *scored(tokens)]
        body: dict[str, Any] = {"index": self.index, "finish_reason": reason}
        body["logprobs"] = self._form_of(known) if known else None
        if not self.form.is_chat:
            return {**body, "text": (self.echo or "") + text if first else text}
        delta: dict[str, Any] = {"role": "assistant"} if first else {}
        return {**body, "delta": {**delta, "content": text} if text or first else delta}

    def prompt_form(self, answer: Completion) -> list[dict[str, Any] | None]:
        """The field ``prompt_logprobs``."""
        return prompt_form(
            self.form.codec, [self._cut(one, self.form.prompt_logprobs) for one in answer.prompt_logprobs or ()]
        )

    def _prompt_tokens(self) -> list[Scored]:
        """Tokens of the prompt with their log-probabilities, where both are part of the answer."""
        if self.echo is None or self.form.logprobs is None:
            return []
        return list(zip(self._prompt_ids, self.handle.prompt_logprobs or (), strict=True))

    def _form_of(self, tokens: Sequence[Scored]) -> dict[str, Any] | None:
        if self.form.logprobs is None:
            return None
        cut = [(token_id, self._cut(one, self.form.logprobs)) for token_id, one in tokens]
        if self.form.is_chat:
            return chat_form(self.form.codec, [one for _, one in cut if one is not None])
        return self._logprobs.form(cut)

    @staticmethod
    def _cut(token: TokenLogprobs | None, top: int | None) -> TokenLogprobs | None:
        return None if token is None else token._replace(top=token.top[: top or 0])


def scored(tokens: Sequence[TokenLogprobs]) -> list[Scored]:
    """Tokens of an answer with their log-probabilities."""
    return [(one.token_id, one) for one in tokens]


def usage(answers: Sequence[Completion], choices_per_prompt: int) -> dict[str, int]:
    """Token counts of a request. A prompt with several choices is counted once, as OpenAI does."""
    prompt = sum(answer.prompt_tokens for answer in answers[::choices_per_prompt])
    new = sum(len(answer.token_ids) for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}
