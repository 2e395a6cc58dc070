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

from helix_kit.runtime.api.fields import CHAT_NEUTRAL, COMPLETION_NEUTRAL, INVALID, check_fields

TokenIds = Annotated[list[Annotated[int, Field(ge=0, le=1 << 31)]], Field(min_length=1)]
Stop = Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=8)]
NewTokens = Annotated[int, Field(ge=1, le=1 << 31)]
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

    def sampling(self, default_temperature: float, index: int) -> dict[str, Any]:
        """Keywords of `Engine.submit` for choice `index` of the `n` that were asked for; each has a seed of its own."""
        temperature = default_temperature if self.temperature is None else self.temperature
        return {
            "temperature": temperature,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "top_k": max(0, self.top_k or 0),
            "stop": self.stops,
            "ignore_eos": bool(self.ignore_eos),
            "seed": secrets.randbits(_NO_SEED_BITS) if self.seed is None else choice_seed(self.seed, index),
        }


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

    prompt: str | TokenIds | Annotated[list[str] | list[TokenIds], Field(min_length=1, max_length=64)]

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, one by one."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]  # type: ignore[list-item]
        return list(self.prompt)  # type: ignore[arg-type]


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


class ChatRequest(Common):
    """Body of /v1/chat/completions."""

    neutral: ClassVar[dict[str, tuple[Any, ...]]] = CHAT_NEUTRAL

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1024)]
    max_completion_tokens: NewTokens | None = None

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            message = "{name}: expected one of max_tokens and max_completion_tokens, or the same value in both"
            raise PydanticCustomError(INVALID, message, {"name": "max_completion_tokens"})
        return self

    @property
    def asked_tokens(self) -> tuple[str, int | None]:
        """The field that limits the answer's tokens, and its value: None when the request does not say."""
        if self.max_completion_tokens is not None:
            return "max_completion_tokens", self.max_completion_tokens
        return "max_tokens", self.max_tokens
