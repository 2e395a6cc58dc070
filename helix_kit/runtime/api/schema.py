"""Bodies of the requests, as OpenAI's API describes them.

A field that would change the answer, but is not supported here, is refused. It is never ignored silently.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

TokenIds = Annotated[list[Annotated[int, Field(ge=0, le=1 << 31)]], Field(min_length=1)]
Stop = Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=8)]
MAX_CHOICES = 16


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    include_usage: bool = False


class Common(BaseModel):
    """Fields that completions and chat share."""

    model_config = ConfigDict(extra="ignore")

    model: Annotated[str, Field(max_length=256)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1 << 20)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 62), lt=1 << 62)] | None = None
    stop: Annotated[str, Field(max_length=256)] | Stop | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = None
    user: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        without_effect: dict[str, tuple[Any, ...]] = {
            "logprobs": (None, False),
            "top_logprobs": (None, 0),
            "echo": (None, False),
            "best_of": (None, 1),
            "suffix": (None, ""),
            "logit_bias": (None, {}),
            "presence_penalty": (None, 0),
            "frequency_penalty": (None, 0),
            "tools": (None, []),
            "functions": (None, []),
            "response_format": (None, {"type": "text"}),
        }
        for name, values in without_effect.items():
            # Types are compared, too: 0 equals False in Python, but logprobs = 0 asks for something.
            if not any(data.get(name) == v and type(data.get(name)) in (type(v), float) for v in values):
                raise ValueError(f"{name} is not supported")
        return data

    @field_validator("stop")
    @classmethod
    def _empty_is_none(cls, stop: str | list[str] | None) -> str | list[str] | None:
        return None if stop == "" else stop

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings as a tuple, which may be empty."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def sampling(self, default_temperature: float, index: int) -> dict[str, Any]:
        """Keywords of `Engine.submit` for choice `index` of the `n` that were asked for; each has a seed of its own."""
        temperature = default_temperature if self.temperature is None else self.temperature
        options: dict[str, Any] = {
            "temperature": temperature,
            "top_p": self.top_p or 1.0,
            "top_k": self.top_k or 0,
            "stop": self.stops,
            "ignore_eos": bool(self.ignore_eos),
        }
        if self.seed is not None:
            options["seed"] = abs(self.seed) + index
        return options


class CompletionRequest(Common):
    """Body of /v1/completions: one prompt or several, as text or as token ids."""

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

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]

    def plain(self) -> dict[str, str]:
        """Role and text, as chat templates read them."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(Common):
    """Body of /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1024)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
