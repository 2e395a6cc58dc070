"""What the endpoints for completions and for chat share: requests to the engine, and their answers as they come."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from helix_kit.errors import HelixKitError, InputError
from helix_kit.runtime.api import errors
from helix_kit.runtime.api.answers import AnswerForm, Choice, usage
from helix_kit.runtime.api.fields import INVALID
from helix_kit.runtime.api.limits import Limits
from helix_kit.runtime.api.metrics import ApiMetrics
from helix_kit.runtime.api.schema import ChatRequest, CompletionRequest
from helix_kit.runtime.engine import Engine
from helix_kit.runtime.errors import ContextLengthError
from helix_kit.runtime.generation_options import PROMISE_TOKENS, GenerationOptions
from helix_kit.runtime.handle import Completion, RequestFailedError
from helix_kit.runtime.logprobs import TokenLogprobs

DISCONNECT_POLL_S = 0.5
"""How often a client that waits for an answer is looked for."""

Body = CompletionRequest | ChatRequest


class _Event(NamedTuple):
    """What one step added to one of the choices; `reason` says why the choice ends, None: it goes on."""

    choice: Choice
    text: str
    tokens: list[TokenLogprobs]
    reason: str | None


class Service:
    """Answers the bodies of requests.

    Parameters
    ----------
    engine
        Answers them.
    name
        The model's name.
    limits
        What one request may ask for.
    metrics
        Counts requests that have ended.
    """

    def __init__(self, engine: Engine, name: str, limits: Limits, metrics: ApiMetrics) -> None:
        self.engine, self.name, self.limits, self.metrics = engine, name, limits, metrics

    def check_model(self, name: str | None) -> None:
        """Answer 404 when another model is asked for than the one that is served."""
        if name is not None and name != self.name:
            message = f"no model {name!r}: this engine serves {self.name!r}"
            raise errors.RefusedError(message, status=404, code="model_not_found", param="model")

    # ---- requests to the engine ----------------------------------------------------------------------------------

    def submit_all(self, prompts: Sequence[str | list[int]], body: Body) -> list[Choice]:
        """Submit all choices of all prompts; when one is refused, cancel the others."""
        limit_field, asked = body.asked_tokens
        limit = self.limits.new_tokens
        if asked is not None and limit is not None and asked > limit:
            message = f"{limit_field} = {asked}: expected at most {limit}"
            raise errors.RefusedError(message, code=INVALID, param=limit_field)
        form = AnswerForm(body.is_chat, self.name, self.engine.codec, body.wanted_logprobs, body.prompt_logprobs)
        if form.logprobs is not None or form.prompt_logprobs is not None:
            _ = form.codec.token_bytes  # a model without a tokenizer is refused before anything is submitted
        choices: list[Choice] = []
        try:
            for prompt in prompts:
                ids = self._prompt_ids(prompt, body)
                echo = self._text_of(prompt, ids, body) if body.wants_echo else None
                options = self._options(ids, body)
                for number in range(body.n or 1):
                    handle = self.engine.submit(ids, options, **body.sampling(number))
                    choices.append(Choice(form, len(choices), handle, ids, echo))
        except HelixKitError as error:
            for choice in choices:
                choice.handle.cancel()
            raise self._in_fields_of_the_body(error, body) from None
        return choices

    def _prompt_ids(self, prompt: str | list[int], body: Body) -> list[int]:
        """Token ids of a prompt, without what `truncate_prompt_tokens` cuts off at its beginning."""
        ids = self.engine.prompt_ids(prompt)
        kept = body.truncate_prompt_tokens
        if kept == -1:
            _, asked = body.asked_tokens
            kept = max(1, self.engine.max_request_tokens() - (1 if asked is None else asked))
        return ids if kept is None else ids[-kept:]

    def _text_of(self, prompt: str | list[int], ids: list[int], body: Body) -> str:
        """The prompt's text: as it was sent, or that of the tokens."""
        if isinstance(prompt, str) and body.truncate_prompt_tokens is None:
            return prompt
        return self.engine.codec.decode(ids)

    def _options(self, ids: list[int], body: Body) -> GenerationOptions:
        """The limits of an answer; what it may have at most if the body does not say is what fits."""
        _, asked = body.asked_tokens
        if asked is not None:
            return GenerationOptions(max_new_tokens=asked, prompt_logprobs=body.engine_prompt_logprobs,
                                     queue_timeout_s=self.limits.seconds)  # fmt: skip
        fit = self.engine.max_request_tokens() - len(ids)
        default = None if body.is_chat else self.limits.default_new_tokens
        most = max(1, min([fit, *(n for n in (default, self.limits.new_tokens) if n is not None)]))
        return GenerationOptions(
            max_new_tokens=most,
            promise_tokens=PROMISE_TOKENS if body.is_chat else None,
            prompt_logprobs=body.engine_prompt_logprobs,
            queue_timeout_s=self.limits.seconds,
        )

    def _in_fields_of_the_body(self, error: HelixKitError, body: Body) -> HelixKitError:
        """The engine's error, with the names that the client knows."""
        limit_field, _ = body.asked_tokens
        if isinstance(error, ContextLengthError):
            field = body.prompt_field if error.prompt_tokens >= error.limit else limit_field
            return errors.RefusedError(f"{field}: {error.expected}", code=errors.CONTEXT_EXCEEDED, param=field)
        if isinstance(error, InputError) and error.field == "prompt":
            return errors.RefusedError(str(error), code=INVALID, param=body.prompt_field)
        if isinstance(error, InputError) and error.field == "min_tokens":
            message = f"min_tokens = {body.min_tokens}: expected at most as many tokens as the answer may have"
            return errors.RefusedError(message, code=INVALID, param="min_tokens")
        return error

    def _too_large(self, error: RequestFailedError, choices: list[Choice], body: Body) -> HelixKitError:
        """A request that fits into no pipeline's KV pages exceeds what this server has as context."""
        field, _ = body.asked_tokens
        if max(choice.prompt_tokens for choice in choices) >= self.engine.max_request_tokens():
            field = body.prompt_field
        return errors.RefusedError(f"{field}: {error}", code=errors.CONTEXT_EXCEEDED, param=field)

    # ---- answers -------------------------------------------------------------------------------------------------

    async def answer(self, choices: list[Choice], body: Body, request: Request) -> Response:
        """The response, whole or as a stream; the requests are cancelled when the client no longer waits."""
        form, choices_per_prompt = choices[0].form, body.n or 1
        try:
            if not body.stream:
                answers = await self._within_limits(self._all(choices), request)
                return JSONResponse(form.whole(choices, answers, choices_per_prompt))
            # A request that fails before its first piece is answered with an error status, not with a stream.
            events = self._events(choices)
            first = await self._within_limits(anext(events), request)
        except BaseException as error:
            for choice in choices:
                choice.handle.cancel()
            if isinstance(error, RequestFailedError) and error.code == "too_large":
                raise self._too_large(error, choices, body) from None
            raise
        wants_usage = bool(body.stream_options and body.stream_options.include_usage)
        stream = self._stream(first, events, choices, choices_per_prompt if wants_usage else 0)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})

    async def _all(self, choices: list[Choice]) -> list[Completion]:
        answers = []
        for choice in choices:
            async for _ in choice.handle:
                pass
            answers.append(choice.handle.result())
        for choice in choices:
            self.metrics.observe(choice.handle.record)
        return answers

    async def _within_limits(self, work: Any, request: Request) -> Any:
        """The result of `work`; fails when the time limit has passed or the client has disconnected."""
        task = asyncio.ensure_future(work)
        end = time.monotonic() + self.limits.seconds
        try:
            while True:
                done, _ = await asyncio.wait({task}, timeout=min(DISCONNECT_POLL_S, max(0.0, end - time.monotonic())))
                if done:
                    return task.result()
                if time.monotonic() >= end:
                    raise RequestFailedError(f"not finished within {self.limits.seconds:g} s", code="timeout")
                if await request.is_disconnected():
                    raise RequestFailedError("the client has gone", code="closed")
        finally:
            task.cancel()

    async def _events(self, choices: list[Choice]) -> AsyncIterator[_Event]:
        """The pieces of all choices in the order in which they come; one with a reason is the last of its choice.

        Log-probabilities of tokens whose text is held back come with the next text.
        """
        merged: asyncio.Queue[_Event | Exception] = asyncio.Queue()

        async def forward(choice: Choice) -> None:
            tokens: list[TokenLogprobs] = []
            try:
                async for piece in choice.handle:
                    if piece.logprobs is not None:
                        tokens.append(piece.logprobs)
                    if piece.text:
                        merged.put_nowait(_Event(choice, piece.text, tokens, None))
                        tokens = []
                merged.put_nowait(_Event(choice, "", tokens, choice.handle.result().finish_reason))
            except RequestFailedError as error:
                merged.put_nowait(error)

        tasks = [asyncio.create_task(forward(choice)) for choice in choices]
        try:
            unfinished = len(choices)
            while unfinished:
                event = await merged.get()
                if isinstance(event, Exception):
                    raise event
                unfinished -= event.reason is not None
                yield event
        finally:
            for task in tasks:
                task.cancel()

    async def _stream(
        self, first: _Event, events: AsyncIterator[_Event], choices: list[Choice], choices_per_prompt: int
    ) -> AsyncIterator[str]:
        """The events of a stream; with `choices_per_prompt`, the last one has the token counts."""
        head = choices[0].form.head(chunk=True)

        def event(content: dict[str, Any]) -> str:
            return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"

        def chunk(piece: _Event) -> str:
            return event({**head, "choices": [piece.choice.chunk(piece.text, piece.tokens, piece.reason)]})

        try:
            yield chunk(first)
            async with asyncio.timeout(self.limits.seconds):
                async for later in events:
                    yield chunk(later)
            if choices_per_prompt:
                answers = [choice.handle.result() for choice in choices]
                yield event({**head, "choices": [], "usage": usage(answers, choices_per_prompt)})
            for choice in choices:
                self.metrics.observe(choice.handle.record)
        except (RequestFailedError, TimeoutError) as error:
            # The HTTP status has been sent already, so that the error becomes an event of the stream, which then ends.
            message = str(error) or f"not finished within {self.limits.seconds:g} s"
            code = error.code if isinstance(error, RequestFailedError) else "timeout"
            yield event(errors.body(503, message, code))
        finally:
            for choice in choices:
                choice.handle.cancel()
        yield "data: [DONE]\n\n"
