"""Models that are made to call a tool, which say what they must whatever they would."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests import tools_template
from trimem import InvalidInputError, LanguageModel, UnsupportedModelError
from trimem.chat import chat
from trimem.errors import UnfinishedCallError
from trimem.lm.calling import CallFormat, MustCall, call_format
from trimem.lm.tool_calls import said

ADD: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}, "how": {"enum": ["fast", "slow"]}},
            "required": ["a", "how"],
        },
    },
}
NOW: dict[str, Any] = {"type": "function", "function": {"name": "now", "description": 'The "time".'}}
ASKED = [{"role": "user", "content": "?"}]

CALLS = {
    "hermes": "<tool_call>\n{{ call['function'] | tojson }}\n</tool_call>",
    "llama": '{"name": "{{ call.function.name }}", "parameters": {{ call.function.arguments | tojson }}}',
    "mistral": "[{{ call['function'] | tojson }}]",
}
FORMATS = {
    "hermes": CallFormat('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>"),
    "llama": CallFormat('{"name": "', '", "parameters": ', "}"),
    "mistral": CallFormat('[{"name": "', '", "arguments": ', "}]"),
}


def writing(call: str) -> LanguageModel:
    """Return the tiny model with a template that writes calls like this."""
    lm = tools_template.build()
    lm.tokenizer.chat_template = tools_template.TEMPLATE.replace(
        "<tool_call>{{ call['function'] | tojson }}</tool_call>", call
    )
    return lm


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_what_the_template_writes(name: str) -> None:
    lm = writing(CALLS[name])
    assert call_format(lm) == FORMATS[name]
    answer = chat(lm, ASKED, tools=[NOW, ADD], must_call=["add"], max_new_tokens=120).answer
    (call,) = said(answer.text, ["add", "now"]).calls
    assert call.name == "add"
    assert set(call.arguments) == {"a", "how"}
    assert call.arguments["a"] in range(100)
    assert call.arguments["how"] in ("fast", "slow")
    form = FORMATS[name]
    assert answer.text.startswith(f"{form.before}add{form.between}{{")
    assert answer.text.endswith(form.after.strip())
    assert answer.new_tokens < 120, "and there it ends"


def test_what_a_tool_does_not_take_is_not_given() -> None:
    lm = tools_template.build()
    assert chat(lm, ASKED, tools=[NOW], must_call=["now"], max_new_tokens=90).answer.text.count('"arguments": {}') == 1
    anything = {"type": "function", "function": {"name": "now", "parameters": {"additionalProperties": True}}}
    must = MustCall(lm, [anything])
    for token in lm.tokenize('<tool_call>{"name": "now", "arguments": {'):
        must.heard(torch.tensor([[token]]))
    assert must(torch.zeros(1, 1), torch.zeros(1, 100))[0, lm.tokenize('"')[0]] == 0


def test_special_tokens_of_a_call_are_spoken() -> None:
    lm = writing("<unk>[{{ call['function'] | tojson }}]")
    answer = chat(lm, ASKED, tools=[NOW], must_call=["now"], max_new_tokens=120).answer
    assert said(answer.text, ["now"]).calls[0].name == "now"
    assert call_format(lm).before.startswith("<unk>")
    assert answer.pieces[0] == "", "which is a token, and no text"


def test_the_model_chooses_among_tools() -> None:
    lm = tools_template.build()
    wanted = {name: lm.tokenize(name)[0] for name in ("add", "now")}
    for name, token in wanted.items():
        bias = [[[token], 50.0]]
        told = chat(lm, ASKED, tools=[NOW, ADD], must_call=["now", "add"], max_new_tokens=120, sequence_bias=bias)
        text = told.answer.text
        assert said(text, wanted).calls[0].name == name


def test_nothing_else_can_be_said() -> None:
    lm = tools_template.build()
    must = MustCall(lm, [NOW])
    for token in lm.tokenize('<tool_call>{"name": "now", "arguments": {'):
        scores = must(torch.zeros(1, 1), torch.zeros(1, 100))
        assert scores[0, token] == 0
        assert torch.isneginf(scores[0, lm.tokenizer.eos_token_id])
        assert not must.finished
        must.heard(torch.tensor([[token]]))
    with pytest.raises(InvalidInputError, match="num_beams must be 1"):
        must(torch.zeros(2, 1), torch.zeros(2, 100))


def test_a_call_that_is_cut_off_is_an_error() -> None:
    lm = tools_template.build()
    with pytest.raises(UnfinishedCallError, match="cut off after 20 tokens"):
        _ = chat(lm, ASKED, tools=[ADD], must_call=["add"], max_new_tokens=20).answer
    with pytest.raises(UnfinishedCallError, match="no stop strings"):
        _ = chat(lm, ASKED, tools=[ADD], must_call=["add"], max_new_tokens=120, stop_strings=["name"]).answer
    stream = chat(lm, ASKED, tools=[ADD], must_call=["add"], max_new_tokens=120)
    next(stream)
    stream.close()


def test_what_cannot_be_called_is_refused(tiny_llama: LanguageModel) -> None:
    lm = tools_template.build()
    with pytest.raises(InvalidInputError, match="tools are now; got add"):
        chat(lm, ASKED, tools=[NOW], must_call=["add"])
    with pytest.raises(InvalidInputError, match="tools are none; got add"):
        chat(lm, ASKED, must_call=["add"])
    broken = {"type": "function", "function": {"name": "x", "parameters": {"properties": 5}}}
    with pytest.raises(InvalidInputError, match="must be a JSON schema"):
        chat(lm, ASKED, tools=[broken], must_call=["x"])
    with pytest.raises(InvalidInputError, match="got none"):
        MustCall(lm, [])
    for call in ("call {{ call['function']['name'] }}", "{{ raise_exception('no calls') }}", ""):
        with pytest.raises(UnsupportedModelError, match="another format"):
            call_format(writing(call))
    with pytest.raises(UnsupportedModelError):
        call_format(tiny_llama)
