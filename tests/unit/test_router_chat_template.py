"""Prompts of conversations are those that transformers renders, token for token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.router_tokenizers import DEMO_MODEL, byte_level
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from brigade.core.errors import InvalidRequest, ModelError
from services.router.text.chat_template import ChatTemplate
from services.router.text.tokenizer import ModelTokenizer

CONVERSATIONS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "hi"}],
    [{"role": "system", "content": "  Be <b>brief</b> & kind.\n"}, {"role": "user", "content": "Wh\u00e4t?"}],
    [
        {"role": "user", "content": "one", "name": "Ann"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "<s>three</s>"},
    ],
]
TEMPLATES = [
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m.content | trim }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}",
    "{%- for message in messages %}\n    {%- if loop.index0 > 1 %}\n        {%- break %}\n    {%- endif %}\n"
    "    {{- message | tojson(indent=2) }}\n{%- endfor %}\n{% if tools is not none %}never{% endif %}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + m.content | length %}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}{{ ns.n }}",
    "{{ messages[0].content.split('<')[0].upper() }}{% if enable_thinking is defined %}{{ enable_thinking }}{% endif %}",
    "{% set d = dict(a=1, **dict.fromkeys(['b'])) %}{% set ns = namespace(d, self=2) %}{{ ns.a }}{{ ns.self }}{{ d }}",
    "{{ strftime_now('%%') }}{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join }}",
]


def model_folder(folder: Path, template: str, *, as_file: bool) -> Path:
    byte_level().save(str(folder / "tokenizer.json"))
    config: dict[str, object] = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    if as_file:
        (folder / "chat_template.jinja").write_text(template, "utf-8")
    else:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("as_file", [True, False])
@pytest.mark.parametrize("template", TEMPLATES)
def test_rendering_equals_that_of_transformers(tmp_path: Path, template: str, as_file: bool) -> None:
    folder = model_folder(tmp_path, template, as_file=as_file)
    ours = ModelTokenizer.from_folder(folder)
    theirs = PreTrainedTokenizerFast.from_pretrained(folder)
    assert ours.chat_template is not None
    for messages in CONVERSATIONS:
        for variables in ({}, {"enable_thinking": False}):
            for add in (True, False):
                text = ours.chat_template.render(messages, add_generation_prompt=add, variables=variables)
                assert text == theirs.apply_chat_template(
                    messages, add_generation_prompt=add, tokenize=False, **variables
                )
                assert (
                    ours.encode_now(text, add_special_tokens=False)
                    == theirs.apply_chat_template(messages, add_generation_prompt=add, **variables)["input_ids"]
                )


def test_the_demo_model_reads_conversations_as_transformers_has_it() -> None:
    ours = ModelTokenizer.from_folder(DEMO_MODEL)
    theirs = AutoTokenizer.from_pretrained(DEMO_MODEL)
    assert ours.chat_template is not None
    for messages in CONVERSATIONS:
        text = ours.chat_template.render(messages)
        expected = theirs.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        assert ours.encode_now(text, add_special_tokens=False) == expected
        assert ours.decode(expected) == theirs.decode(expected)
        assert ours.decode(expected, skip_special_tokens=True) == theirs.decode(expected, skip_special_tokens=True)


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages[7].content }}",
        "{{ messages + 1 }}",
        "{{ 1 / 0 }}",
        "{{ ''.__class__.__mro__[1].__subclasses__()[0] }}",
        "{{ messages.append(1) }}",
        "{% set ns = namespace(__class__=1) %}",
        "{% set ns = namespace() %}{% set ns._x = 1 %}",
        "{{ dict.mro() }}",
    ],
)
def test_what_a_template_refuses_is_the_clients_error(template: str) -> None:
    """Roles in a wrong order are a 400, and a hostile template reaches nothing."""
    with pytest.raises(InvalidRequest) as caught:
        ChatTemplate(template, {}).render(CONVERSATIONS[0])
    assert caught.value.field == "messages"


def test_clients_variables_cannot_replace_the_messages() -> None:
    template = ChatTemplate("{{ messages[0].content }}{{ add_generation_prompt }}{{ bos_token }}", {"bos_token": "<s>"})
    variables = {"messages": [], "add_generation_prompt": False, "bos_token": "!"}
    assert template.render(CONVERSATIONS[0], variables=variables) == "hiTrue!"


def test_a_template_that_is_no_template_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="chat template"):
        ChatTemplate("{% for %}", {})


def test_missing_and_broken_folders_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        ModelTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        ModelTokenizer.from_folder(tmp_path)


def test_the_default_of_several_named_templates_is_used(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, "", as_file=False)
    templates = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))
    template = ModelTokenizer.from_folder(folder).chat_template
    assert template is not None
    assert template.render(CONVERSATIONS[0]) == "plain"
