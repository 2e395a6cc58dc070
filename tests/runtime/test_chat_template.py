"""Chat templates against transformers' own `apply_chat_template` on the same folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

pytest.importorskip("torch")

from helix_kit.errors import InputError
from helix_kit.runtime.text import TextCodec

TALK = [
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "world"},
    {"role": "user", "content": "is 你 <b>&</b>"},
]
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"z": 1, "a": "<é>"}}}]
DOCUMENTS = [{"title": "one", "text": "a <text>"}]
BASE = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[a]{% endif %}"
)
IF_ASSISTANT = "{% for m in messages %}{% if m['role'] == 'assistant' %}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a tokenizer and no template."""
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2, "hello": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    configure(tmp_path)
    return tmp_path


def configure(folder: Path, **settings: Any) -> None:
    given = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", **settings}
    given = {name: value for name, value in given.items() if value is not None}
    (folder / "tokenizer_config.json").write_text(json.dumps(given))


def by_transformers(folder: Path, messages: list[Any], **options: Any) -> str:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options)


TEMPLATES = {
    "plain": BASE,
    "date": "{{ strftime_now('%d %B %Y') }}" + BASE,
    "date if there is one": "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}1999{% endif %}",
    "break": IF_ASSISTANT + "{% break %}{% endif %}{{ m['content'] }}{% endfor %}",
    "continue": IF_ASSISTANT + "{% continue %}{% endif %}{{ m['content'] }}{% endfor %}",
    "generation": IF_ASSISTANT + "{% generation %}{{ m['content'] }}{% endgeneration %}{% endif %}{% endfor %}",
    "generation with dashes": IF_ASSISTANT + "\n {%- generation -%} \n{{ m['content'] }}"
    "{%- endgeneration -%}\n{% endif %}{% endfor %}",
    "names inside generation": "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}",
    "generation in a macro": "{% macro f(m) %}{% generation %}{{ m.content }}{% endgeneration %}"
    "{% endmacro %}{{ f(messages[0]) }}",
    "json": "{{ messages | tojson }}{{ messages[0] | tojson(indent=2, sort_keys=True) }}"
    "{{ 'é' | tojson(ensure_ascii=True) }}",
    "json with separators": "{{ messages[0] | tojson(separators=(',', ':')) }}",
    "no tools": "{% if tools is none %}none{% endif %}{% if documents is none %}none{% endif %}"
    "{{ custom_tools is defined }}",
    "tools": "{% if tools %}{{ tools | tojson }}{% endif %}",
    "dict and namespace": "{% set n = namespace(i=0) %}{% for m in messages %}{% set n.i = n.i + 1 %}{% endfor %}"
    "{{ n.i }}{{ dict(a=1) }}",
    "all tokens": "{{ bos_token }}|{{ eos_token }}|{{ unk_token }}|{{ pad_token }}|{{ image_token }}",
    "white space": "{% for m in messages %}\n    {% if true %}\n  {{ m.content }}\n    {% endif %}\n"
    "{% endfor %}\nend\n",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_render_as_in_transformers(folder: Path, name: str) -> None:
    configure(folder, chat_template=TEMPLATES[name])
    assert TextCodec(folder).render_chat(TALK) == by_transformers(folder, TALK)


def test_tools_documents_and_own_variables_reach_the_template(folder: Path) -> None:
    template = (
        "{{ tools | tojson }}{% for d in documents %}{{ d.title }}{{ d['text'] }}{% endfor %}{{ enable_thinking }}"
    )
    configure(folder, chat_template=template)
    ours = TextCodec(folder).render_chat(TALK, tools=TOOLS, documents=DOCUMENTS, variables={"enable_thinking": False})
    assert ours == by_transformers(folder, TALK, tools=TOOLS, documents=DOCUMENTS, enable_thinking=False)


def test_tool_calls_and_nulls_of_a_message(folder: Path) -> None:
    template = (
        "{% for m in messages %}{{ m.role }}{% if m.content is defined %}{{ m.content }}{% endif %}"
        "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}"
        "{{ m.reasoning_content or '' }}{{ m.thinking or '' }}{% endfor %}"
    )
    configure(folder, chat_template=template)
    call = {"type": "function", "function": {"name": "add", "arguments": {"x": 1}}}
    messages = [
        {"role": "user", "content": "hello", "tool_calls": None},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning": "I add"},
        {"role": "tool", "content": "3", "name": "add"},
    ]
    assert TextCodec(folder).render_chat(messages) == by_transformers(folder, messages)


@pytest.mark.parametrize("tools", [None, TOOLS])
def test_the_template_for_tools_is_taken_when_there_are_tools(folder: Path, tools: list[Any] | None) -> None:
    named = [{"name": "default", "template": BASE}, {"name": "tool_use", "template": "TOOLS" + BASE}]
    configure(folder, chat_template=named)
    assert TextCodec(folder).render_chat(TALK, tools=tools) == by_transformers(folder, TALK, tools=tools)


@pytest.mark.parametrize("tools", [None, TOOLS])
def test_template_files_win_over_the_config(folder: Path, tools: list[Any] | None) -> None:
    configure(folder, chat_template="OLD")
    (folder / "chat_template.jinja").write_text("FILE" + BASE)
    assert TextCodec(folder).render_chat(TALK) == by_transformers(folder, TALK) == "FILE" + by_base()
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("TOOLS" + BASE)
    assert TextCodec(folder).render_chat(TALK, tools=tools) == by_transformers(folder, TALK, tools=tools)


def by_base() -> str:
    return "".join(f"[{m['role']}]{m['content']}</s>" for m in TALK) + "[a]"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0].content.missing.deeper }}", "undefined|no attribute"),
        ("{% set l = [] %}{% set _ = l.append(1) %}", "unsafe"),
        ("{{ messages + 1 }}", "can only concatenate list"),
        ("{% for %}", "[Ee]xpected"),
        ("{{ 1 / 0 }}", "division by zero"),
    ],
)
def test_errors_of_a_template_are_errors_of_the_messages(folder: Path, template: str, reason: str) -> None:
    configure(folder, chat_template=template)
    with pytest.raises(Exception, match=r"\w"):
        by_transformers(folder, TALK)
    with pytest.raises(InputError, match=f"the chat template refuses these messages: .*{reason}"):
        TextCodec(folder).render_chat(TALK)


def test_no_template_and_no_messages_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="has no chat template"):
        TextCodec(folder).render_chat(TALK)
    configure(folder, chat_template=[{"name": "rag", "template": BASE}])
    with pytest.raises(InputError, match="has no chat template"):
        TextCodec(folder).render_chat(TALK)
    configure(folder, chat_template=BASE)
    with pytest.raises(InputError, match="at least one message"):
        TextCodec(folder).render_chat([])


@pytest.mark.parametrize(
    "template", [5, [{"x": 1}], ["{{ messages }}"], {"default": 5}, [{"name": "a", "template": None}]]
)
def test_a_template_that_is_no_text_is_refused_by_field(folder: Path, template: Any) -> None:
    configure(folder, chat_template=template)
    with pytest.raises(InputError, match=r"tokenizer_config.json: chat_template: expected a template as text"):
        TextCodec(folder).render_chat(TALK)
