"""Calls of tools and their results reach the prompt, or the request is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi")

from helix_kit.runtime.api.conversation import prompt_ids
from helix_kit.runtime.api.errors import RefusedError
from helix_kit.runtime.api.schema import ChatRequest
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


def render(folder: Path, template: str, *messages: dict, **fields: object) -> str:
    """What the model would read of the messages."""
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    codec, prompts = TextCodec(folder), []

    def chat_ids(plain: list[dict], **given: object) -> list[int]:
        prompts.append(codec.render_chat(plain, **given))
        return [5]

    engine = SimpleNamespace(codec=codec, chat_ids=chat_ids)
    prompt_ids(engine, ChatRequest(messages=list(messages), **fields))  # type: ignore[arg-type]
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


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
WITH_TOOLS = "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m['content'] }}{% endfor %}"
WITH_DOCUMENTS = "{% for d in documents or [] %}[{{ d['text'] }}] {% endfor %}{{ messages[0]['content'] }}"
THINKING = "{{ messages[0]['content'] }}{% if enable_thinking %} think{% endif %}"


def test_tools_and_documents_reach_templates_that_write_them(tmp_path: Path) -> None:
    assert render(tmp_path, WITH_TOOLS, USER, tools=[TOOL]) == json.dumps([TOOL]) + "hello"
    assert render(tmp_path, WITH_TOOLS, USER, tools=[TOOL], tool_choice="none") == "hello"
    assert render(tmp_path, WITH_TOOLS, USER, tools=[]) == "hello"
    documents = [{"title": "a", "text": "one"}, {"text": "two"}]
    assert render(tmp_path, WITH_DOCUMENTS, USER, documents=documents) == "[one] [two] hello"
    assert render(tmp_path, THINKING, USER, chat_template_kwargs={"enable_thinking": True}) == "hello think"
    assert render(tmp_path, THINKING, USER, chat_template_kwargs={"enable_thinking": False}) == "hello"


@pytest.mark.parametrize(
    ("template", "fields", "param"),
    [
        (PLAIN, {"tools": [TOOL]}, "tools"),
        (PLAIN, {"documents": [{"text": "one"}]}, "documents"),
        (WITH_DOCUMENTS, {"documents": [{"title": "one"}], "tools": [TOOL]}, "tools"),
        (PLAIN, {"chat_template_kwargs": {"enable_thinking": True}}, "chat_template_kwargs"),
        # The template gets these in fields of their own.
        (WITH_TOOLS, {"chat_template_kwargs": {"tools": [TOOL]}}, "chat_template_kwargs"),
    ],
)
def test_what_a_template_does_not_read_is_refused(tmp_path: Path, template: str, fields: dict, param: str) -> None:
    with pytest.raises(RefusedError, match="chat template does not") as refused:
        render(tmp_path, template, USER, **fields)
    assert refused.value.param == param


def test_tools_are_rendered_as_transformers_does(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    options = {"tools": [TOOL], "tokenize": False, "add_generation_prompt": True}
    expected = tokenizer.apply_chat_template([USER], chat_template=WITH_TOOLS, **options)
    assert render(tmp_path, WITH_TOOLS, USER, tools=[TOOL]) == expected
