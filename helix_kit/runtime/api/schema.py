"""Bodies of the requests, as OpenAI's API describes them.

No field is ignored silently: `helix_kit.runtime.api.fields` says what becomes of those that are not declared here.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from helix_kit.runtime.api.fields import CHAT_NEUTRAL, COMPLETION_NEUTRAL, INVALID, UNSUPPORTED, check_fields
from helix_kit.runtime.generation_options import MAX_STOP_TOKENS
from helix_kit.runtime.worker.sampling_params import MAX_BIASES, MAX_LOGPROBS

TokenId = Annotated[int, Field(strict=True, ge=0, le=1 << 31)]
"""A JSON number: true is not 1 here."""
TokenIds = Annotated[list[TokenId], Field(min_length=1)]
Stop = Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=8)]
NewTokens = Annotated[int, Field(ge=1, le=1 << 31)]
TokenText = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,9})$")]
"""A token id as a key of a JSON object."""
Penalty = Annotated[float, Field(ge=-2, le=2)]
TopCount = Annotated[int, Field(strict=True, ge=0, le=MAX_LOGPROBS)]
MAX_CHOICES = 16
_NO_SEED_BITS = 62


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    """Padding of events against eavesdroppers; none is added here."""
    continuous_usage_stats: Literal[False] | None = None


class Common(BaseModel):
    """Fields that completions and chat share."""

    # `check_fields` has refused what is not known before further fields are left out here.
    model_config = ConfigDict(extra="ignore", json_schema_extra={"additionalProperties": False}, allow_inf_nan=False)
    neutral: ClassVar[dict[str, tuple[Any, ...]]]
    """Fields that are refused, with the values that pass."""

    model: Annotated[str, Field(max_length=256)] | None = None
    max_tokens: NewTokens | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=1 << 20)] | None = None
    """0 and -1: all tokens."""
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    stop: Annotated[str, Field(max_length=256)] | Stop | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    logit_bias: (
        Annotated[dict[TokenText, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=MAX_BIASES)] | None
    ) = None
    min_tokens: Annotated[int, Field(ge=0, le=1 << 31)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_STOP_TOKENS)] | None = None
    prompt_logprobs: TopCount | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, le=1 << 31)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_fields(cls, data: Any) -> Any:
        if isinstance(data, dict):
            check_fields(data, cls.model_fields, cls.neutral)
        return data

    @field_validator("stop")
    @classmethod
    def _empty_is_none(cls, stop: str | list[str] | None) -> str | list[str] | None:
        return None if stop == "" else stop

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        field, asked = self.asked_tokens
        if asked is not None and (self.min_tokens or 0) > asked:
            message = "{name}: expected at most {limit}, as many as the answer may have ({field})"
            raise PydanticCustomError(INVALID, message, {"name": "min_tokens", "limit": asked, "field": field})
        if self.truncate_prompt_tokens == 0:
            message = "{name}: expected 1 or more, or -1 for as many as fit"
            raise PydanticCustomError(INVALID, message, {"name": "truncate_prompt_tokens"})
        if self.prompt_logprobs is not None and self.stream:
            message = "{name}: expected a request without stream"
            raise PydanticCustomError(INVALID, message, {"name": "prompt_logprobs"})
        return self

    @property
    def asked_tokens(self) -> tuple[str, int | None]:
        """The field that limits the answer's tokens, and its value: None when the request does not say."""
        return "max_tokens", self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings as a tuple, which may be empty."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def sampling(self, index: int) -> dict[str, Any]:
        """Keywords of `Engine.submit` for choice `index` of the `n` that were asked for; each has a seed of its own."""
        given = {name: value for name in _SAMPLING_FIELDS if (value := self.__dict__[name]) is not None}
        return {
            "temperature": 1.0,
            **given,
            "top_k": max(0, self.top_k or 0),
            "stop": self.stops,
            "logit_bias": {int(token): bias for token, bias in (self.logit_bias or {}).items()},
            "logprobs": self.wanted_logprobs,
            "seed": secrets.randbits(_NO_SEED_BITS) if self.seed is None else choice_seed(self.seed, index),
        }

    @property
    def wanted_logprobs(self) -> int | None:
        """How many alternatives each token of the answer is shown with; None: no log-probabilities."""
        raise NotImplementedError

    @property
    def engine_prompt_logprobs(self) -> int | None:
        """The same for the tokens of the prompt, whatever field asks for it."""
        return self.prompt_logprobs


_SAMPLING_FIELDS = (
    "temperature",
    "top_p",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "min_tokens",
    "stop_token_ids",
    "ignore_eos",
)
"""Fields that the engine knows under the same names."""


def choice_seed(seed: int, index: int) -> int:
    """The engine's seed for choice `index` of a request with `seed`; the first choice has the request's own.

    The others are hashed from both: with seed + index, the second choice of seed 7 would equal the first one of seed 8.
    """
    seed %= 1 << 63
    if index == 0:
        return seed
    digest = hashlib.blake2b(f"{seed} {index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class CompletionRequest(Common):
    """Body of /v1/completions: one prompt or several, as text or as token ids."""

    neutral: ClassVar[dict[str, tuple[Any, ...]]] = COMPLETION_NEUTRAL
    is_chat: ClassVar[bool] = False
    prompt_field: ClassVar[str] = "prompt"

    prompt: str | TokenIds | Annotated[list[str] | list[TokenIds], Field(min_length=1, max_length=64)]
    max_tokens: Annotated[int, Field(ge=0, le=1 << 31)] | None = None
    """0: none, where the prompt is what the request is about."""
    echo: bool | None = None
    logprobs: TopCount | Literal[False] | None = None

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if self.max_tokens == 0 and not self.echo and self.prompt_logprobs is None:
            message = "{name}: expected at least 1; 0 only with echo or prompt_logprobs"
            raise PydanticCustomError(INVALID, message, {"name": "max_tokens"})
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, one by one."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]  # type: ignore[list-item]
        return list(self.prompt)  # type: ignore[arg-type]

    @property
    def wants_echo(self) -> bool:
        """Whether the prompt is part of the answer."""
        return bool(self.echo)

    @property
    def wanted_logprobs(self) -> int | None:
        """How many alternatives each token of the answer is shown with; None: no log-probabilities."""
        return None if self.logprobs is False else self.logprobs

    @property
    def engine_prompt_logprobs(self) -> int | None:
        """The same for the tokens of the prompt; a request without an answer always asks the engine for them."""
        asked = [self.prompt_logprobs, self.wanted_logprobs if self.echo else None, 0 if self.max_tokens == 0 else None]
        return max((count for count in asked if count is not None), default=None)


class TextPart(BaseModel):
    """Part of a message; only text is supported."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class CalledFunction(BaseModel):
    """Name and arguments of a function that the assistant called."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1)]
    arguments: str

    @field_validator("arguments")
    @classmethod
    def _is_object(cls, arguments: str) -> str:
        try:
            is_object = isinstance(json.loads(arguments or "{}"), dict)
        except (ValueError, RecursionError):
            is_object = False
        if not is_object:
            raise PydanticCustomError(INVALID, "expected the text of a JSON object")
        return arguments


class ToolCall(BaseModel):
    """A call of a function in an earlier message of the assistant."""

    model_config = ConfigDict(extra="forbid")

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction

    def plain(self) -> dict[str, Any]:
        """As chat templates read it: they write the arguments as JSON themselves."""
        arguments = json.loads(self.function.arguments or "{}")
        return {"id": self.id, "type": "function", "function": {"name": self.function.name, "arguments": arguments}}


class ChatMessage(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart], Field(min_length=1)] | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=128)] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    # What an answer carries that a client sends back as it is: accepted where it says nothing.
    refusal: Literal[""] | None = None
    audio: None = None
    function_call: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None

    @model_validator(mode="after")
    def _fits_role(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise PydanticCustomError(INVALID, "tool_calls: expected in messages of the assistant only")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise PydanticCustomError(INVALID, "tool_call_id: expected in each message of a tool, and in no other")
        if self.content is None and not self.tool_calls:
            raise PydanticCustomError(INVALID, "content: expected text; only messages with tool_calls may lack it")
        return self

    def plain(self) -> dict[str, Any]:
        """The message as chat templates read it. Null content becomes empty text: they would write 'None'."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content or ())
        message: dict[str, Any] = {"role": "system" if self.role == "developer" else self.role, "content": text}
        for field in ("name", "tool_call_id", "reasoning_content"):
            if (value := getattr(self, field)) is not None:
                message[field] = value
        if self.tool_calls:
            message["tool_calls"] = [call.plain() for call in self.tool_calls]
        return message


class Function(BaseModel):
    """A function that the model may call."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=256)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @field_validator("strict")
    @classmethod
    def _is_not_strict(cls, strict: bool | None) -> bool | None:
        if strict:
            raise PydanticCustomError(UNSUPPORTED, "strict is not supported: answers are not held to a schema")
        return strict


class Tool(BaseModel):
    """A function that the model may call, as chat templates read it."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["function"]
    function: Function

    def plain(self) -> dict[str, Any]:
        """The tool without what was not sent."""
        return self.model_dump(exclude_none=True, exclude={"function": {"strict"}})


class ChatRequest(Common):
    """Body of /v1/chat/completions."""

    neutral: ClassVar[dict[str, tuple[Any, ...]]] = CHAT_NEUTRAL
    is_chat: ClassVar[bool] = True
    prompt_field: ClassVar[str] = "messages"
    wants_echo: ClassVar[bool] = False

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1024)]
    max_completion_tokens: NewTokens | None = None
    logprobs: bool | None = None
    top_logprobs: TopCount | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    documents: Annotated[list[dict[str, Any]], Field(max_length=1024)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @field_validator("tool_choice", mode="before")
    @classmethod
    def _is_no_order(cls, choice: Any) -> Any:
        if choice not in (None, "none", "auto"):
            raise PydanticCustomError(UNSUPPORTED, "a call cannot be forced: expected none or auto")
        return choice

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            message = "{name}: expected one of max_tokens and max_completion_tokens, or the same value in both"
            raise PydanticCustomError(INVALID, message, {"name": "max_completion_tokens"})
        if self.top_logprobs and not self.logprobs:
            raise PydanticCustomError(INVALID, "{name}: expected logprobs = true beside it", {"name": "top_logprobs"})
        return self

    @property
    def asked_tokens(self) -> tuple[str, int | None]:
        """The field that limits the answer's tokens, and its value: None when the request does not say."""
        if self.max_completion_tokens is not None:
            return "max_completion_tokens", self.max_completion_tokens
        return "max_tokens", self.max_tokens

    @property
    def wanted_logprobs(self) -> int | None:
        """How many alternatives each token of the answer is shown with; None: no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def plain_tools(self) -> list[dict[str, Any]] | None:
        """Tools as chat templates read them; None where the model is not to know of any."""
        if not self.tools or self.tool_choice == "none":
            return None
        return [tool.plain() for tool in self.tools]
