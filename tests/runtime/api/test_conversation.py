"""Calls of tools and their results reach the prompt, or the request is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi")

from helix_kit.runtime.api.conversation import prompt_ids
from helix_kit.runtime.api.errors import RefusedError
from helix_kit.runtime.api.schema import ChatMessage
from helix_kit.runtime.text import TextCodec

CALLS = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}"
    "{% for c in m['tool_calls'] or [] %}{% set f = c['function'] %}<{{ f['name'] }}({{ f['arguments'] | tojson }})>"
    "{% endfor %} {% endfor %}"
)
PLAIN = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} {% endfor %}"
ROLES = "{% for m in messages if m['role'] != 'tool' %}{{ m['content'] }}{{ m['tool_calls'] }} {% endfor %}"
STRICT = "{% for m in messages %}{% if m['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}{% endfor %}"

CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
ASKED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
ASKED_WITH_TEXT = {"role": "assistant", "content": "", "tool_calls": [CALL]}
SAID = {"role": "tool", "tool_call_id": "1", "content": "seven"}
USER = {"role": "user", "content": "hello"}


def render(folder: Path, template: str, *messages: dict) -> str:
    """What the model would read of the messages."""
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    codec, prompts = TextCodec(folder), []

    def chat_ids(plain: list[dict]) -> list[int]:
        prompts.append(codec.render_chat(plain))
        return [5]

    prompt_ids(SimpleNamespace(codec=codec, chat_ids=chat_ids), [ChatMessage(**m) for m in messages])  # type: ignore[arg-type]
    return prompts[0]


def test_a_template_that_reads_tools_gets_them_whole(tmp_path: Path) -> None:
    expected = 'assistant: <f({"x": 1})> tool: seven user: hello '
    assert render(tmp_path, CALLS, ASKED, SAID, USER) == expected
    assert render(tmp_path, CALLS, ASKED_WITH_TEXT, SAID, USER) == expected


@pytest.mark.parametrize(
    ("template", "messages", "place"),
    [
        (PLAIN, (ASKED, SAID), "messages[0].tool_calls"),
        (PLAIN, (USER, ASKED_WITH_TEXT, USER), "messages[1].tool_calls"),
        (ROLES, (ASKED, SAID), "messages[1].content"),
    ],
)
def test_a_template_that_drops_them_is_named(tmp_path: Path, template: str, messages: tuple, place: str) -> None:
    with pytest.raises(RefusedError) as refused:
        render(tmp_path, template, *messages)
    assert place in str(refused.value)
    assert (refused.value.status, refused.value.param) == (400, "messages")


def test_a_template_that_refuses_them_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no tools"):
        render(tmp_path, STRICT, ASKED, SAID)


def test_other_messages_need_no_second_look(tmp_path: Path) -> None:
    assert render(tmp_path, "always the same", USER) == "always the same"
