"""The chat template of a Hugging Face folder, rendered as transformers renders it, without transformers.

Templates are programs in Jinja that come with the model. They run in Jinja's sandbox and see plain data only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_kit import _files
from helix_kit.errors import InputError

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

_REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names under which clients send the reasoning of an earlier answer; templates read the first two."""


def read_templates(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """The Jinja source of each template by its name; the usual one is called ``default``.

    chat_template.jinja and the files in additional_chat_templates/ win over tokenizer_config.json (`settings`).
    """
    files = {file.stem: file for file in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    if (usual := folder / "chat_template.jinja").is_file():
        files = {"default": usual, **files}
    if files:
        return {name: _files.read_text(file) for name, file in files.items()}
    found = settings.get("chat_template")
    if isinstance(found, list) and all(isinstance(e, dict) and {"name", "template"} <= e.keys() for e in found):
        found = {entry["name"]: entry["template"] for entry in found}
    if isinstance(found, str):
        found = {"default": found}
    if not isinstance(found or {}, dict) or any(not isinstance(text, str) for text in (found or {}).values()):
        expected = "expected a template as text, or a list of objects with name and template"
        raise InputError(expected, where=folder / "tokenizer_config.json", field="chat_template")
    return found or {}


def choose_template(templates: Mapping[str, str], *, with_tools: bool) -> str | None:
    """The template for a request: ``tool_use`` where there are tools and it exists, else ``default``; None without."""
    if with_tools and "tool_use" in templates:
        return templates["tool_use"]
    return templates.get("default")


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    documents: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """The prompt that asks for the assistant's next message.

    `variables` are further names that the template may read: the special tokens, and a request's own.

    Raises
    ------
    InputError
        When the template refuses the messages, or is not valid.
    """
    from jinja2 import TemplateError

    if not messages:
        raise InputError("expected at least one message", field="messages")
    # A template reads a null like text; a missing key it tests for.
    conversation = [_with_reasoning({k: v for k, v in message.items() if v is not None}) for message in messages]
    try:
        return (
            _environment()
            .from_string(template)
            .render(
                messages=_plain(conversation),
                tools=_plain(tools),
                documents=_plain(documents),
                add_generation_prompt=True,
                **_plain(variables or {}),
            )
        )
    # A template is a program of the model's author: any error in it means that it cannot render these messages.
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise InputError(f"the chat template refuses these messages: {error}", field="messages") from None


def variables_of(template: str) -> frozenset[str]:
    """Names that a template reads from outside; InputError for one that is not valid."""
    from jinja2 import TemplateError, meta

    try:
        return frozenset(meta.find_undeclared_variables(_environment().parse(template)))
    except TemplateError as error:
        raise InputError(f"the chat template is not valid: {error}", field="messages") from None


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """The message with its reasoning under the names that templates read."""
    reasoning = next((message[name] for name in _REASONING if name in message), None)
    return message if reasoning is None else {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _plain(value: Any) -> Any:
    """`value` out of JSON's types alone, so that a template sees no method of ours."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence):
        return [_plain(inner) for inner in value]
    return f"<{type(value).__name__}>"


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    """Jinja as transformers sets it up: its functions, its filter ``tojson`` and its extensions."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %}`` marks the assistant's text for training; here its body is rendered as it is."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            # A block of its own, as a macro has: names that are set inside end with it, as in transformers.
            return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller: Any) -> str:
            return caller()

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def to_json(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        # Jinja's own filter escapes <, > and &, and sorts the keys.
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def now(pattern: str) -> str:
        return datetime.now().astimezone().strftime(pattern)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = now
    return environment
