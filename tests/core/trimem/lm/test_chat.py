"""Conversations as chat templates write them."""

from __future__ import annotations

from typing import Any

import pytest

from tests import tiny, tools_template
from trimem import InvalidInputError, LanguageModel, UnsupportedModelError
from trimem.lm.chat import check_tools, prompt, takes_tools

TOOL: dict[str, Any] = {"type": "function", "function": {"name": "now", "description": "The time.", "parameters": {}}}
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "What time is it?"},
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "now", "arguments": {"zone": "UTC"}}}]},
    {"role": "tool", "content": "noon"},
]


def test_tools_and_their_calls_stand_where_the_template_puts_them() -> None:
    lm = tools_template.build()
    assert takes_tools(lm)
    written = str(lm.tokenizer.decode(prompt(lm, TALK, [TOOL])))
    assert "Be kind.\n\n<tools>" in written
    assert '<tool_call>{"name": "now", "arguments": {"zone": "UTC"}}</tool_call>' in written
    assert written.endswith("<s>t:noon</s><s>a:")
    assert "<tools>" not in str(lm.tokenizer.decode(prompt(lm, TALK)))


def test_a_template_without_tools_is_named(tiny_llama: LanguageModel, smollm: LanguageModel) -> None:
    for lm in (tiny_llama, smollm):
        assert not takes_tools(lm)
        with pytest.raises(UnsupportedModelError, match=f"{lm.name} calls no tools"):
            check_tools(lm)
        with pytest.raises(UnsupportedModelError):
            prompt(lm, TALK, [TOOL])


def test_a_model_without_a_template_reads_plain_text() -> None:
    lm = tiny.build("llama")
    lm.tokenizer.chat_template = None
    said = [*TALK[:2], {"role": "assistant", "content": "Noon."}, {"role": "user", "content": "Where?"}]
    written = lm.tokenizer.decode(prompt(lm, said))
    assert written == "<s>Be kind.\n\nQuestion: What time is it?\nAnswer: Noon.\nQuestion: Where?\nAnswer:"
    assert not takes_tools(lm)


def test_what_a_template_refuses_is_an_error_of_the_input() -> None:
    lm = tiny.build("llama")
    lm.tokenizer.chat_template = "{{ raise_exception('user and assistant must take turns') }}"
    with pytest.raises(InvalidInputError, match="must take turns"):
        prompt(lm, TALK)
